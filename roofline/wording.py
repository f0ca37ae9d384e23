"""The fixed texts of a page in the language of its reader: English text is the key of its translation.

A language is a file `page.LANGUAGE.toml` beside this one: a table `texts` of English text to its translation, and
`tag`, the language in the words of HTML. Names, reasons and findings are data of a run and stay as they were recorded.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
SOURCE = "en"


class Wording:
    """Texts in one language; raises ValueError with a sentence for one that is not known.

    asked : every text that was looked up, in order; those without a translation stay English. tag : as HTML names it.
    """

    def __init__(self, language: str = SOURCE) -> None:
        if language not in languages():
            raise ValueError(f"There is no page in {language!r}; languages are {', '.join(languages())}.")
        self.language = language
        self.asked: dict[str, None] = {}
        file = {} if language == SOURCE else _read(language)
        self.tag: str = file.get("tag", language)
        self._texts: dict[str, str] = file.get("texts", {})

    def __call__(self, text: str, **values: Any) -> str:
        """A text with the values of its placeholders, `%(name)s`; a per cent sign is doubled where there are any."""
        return self.gettext(text) % values if values else self.gettext(text)

    def gettext(self, text: str) -> str:
        """A text as it stands in the file, its placeholders left open."""
        self.asked[text] = None
        return self._texts.get(text, text)

    def ngettext(self, one: str, many: str, count: int) -> str:
        """One of two texts by a count."""
        return self.gettext(one if count == 1 else many)


def languages() -> list[str]:
    """The languages of a page: English first."""
    return [SOURCE, *sorted(path.name.split(".")[1] for path in _FOLDER.glob("page.*.toml"))]


def _read(language: str) -> dict[str, Any]:
    file = _FOLDER / f"page.{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


ENGLISH = Wording()
