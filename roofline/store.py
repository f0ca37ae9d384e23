"""Reading and writing runs: validated, atomic, versioned.

A result file is data: nothing in it is executed and nothing in it names code to run.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .record import SCHEMA_VERSION, Run

# What a run leaves in its folder besides its journal.
PRODUCTS = ("run.json", "report.html", "roofline.svg")
SCHEMA_FILE = Path(__file__).with_name("run.schema.json")


class RunFileError(Exception):
    """A run that cannot be read. The text says what is wrong with the file and what to do."""


def run_file(path: Path) -> Path:
    """The `run.json` that a user means by a file or a folder."""
    return path / "run.json" if path.is_dir() else path


def load(path: Path) -> Run:
    """Read a run from a file or its folder; raises `RunFileError` with a sentence."""
    file = run_file(path)
    if not file.exists():
        how = _how_to_finish(file) or "; name the folder of a run, or its run.json"
        raise RunFileError(f"There is no {file}{how}.")
    try:
        content = file.read_bytes()
        run = _current(content)
        if run is not None:
            return run
        data = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise RunFileError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RunFileError(f"{file} is not a text file; a run.json is JSON in UTF-8.") from error
    except RecursionError as error:
        raise RunFileError(f"{file} is nested deeper than any run of seqroof.") from error
    except json.JSONDecodeError as error:
        how = _how_to_finish(file) or "; restore it, or measure again"
        raise RunFileError(f"{file} is damaged or cut off at line {error.lineno}{how}.") from error
    return from_data(data, str(file))


def _current(content: bytes) -> Run | None:
    """The run in a file of this schema that is valid as it stands; None where something is to be said about it.

    Reading and validating at once takes half the time of doing one after the other.
    """
    try:
        run = Run.model_validate_json(content)
    except ValidationError:
        return None
    return run if "schema_version" in run.model_fields_set and run.schema_version == SCHEMA_VERSION else None


def _how_to_finish(file: Path) -> str:
    """The end of a sentence: what makes a missing or damaged `run.json` from a journal beside it, by its first line."""
    folder = shlex.quote(str(file.parent))
    if file.with_name("fleet.json").exists():
        return f"; make it of its ranks with: python -m seqroof.scripts.fleet --merge {folder}"
    journal = file.with_name("journal.jsonl")
    if not journal.exists():
        return ""
    try:
        with open(journal, encoding="utf-8") as lines:
            command = json.loads(lines.readline())["data"]["command"]
    except (OSError, ValueError, KeyError, TypeError):  # empty, torn, or from before commands were written there
        command = "seqroof profile"
    shown = "".join(character if character.isprintable() else "?" for character in str(command))
    return f"; finish what its journal holds with: {shown} --out {folder} --resume"


def from_data(data: Any, source: str) -> Run:
    """Validate the content of a run file; raises `RunFileError` with a sentence."""
    if not isinstance(data, dict) or "schema_version" not in data:
        raise RunFileError(f"{source} is JSON, but no run of seqroof: it has no schema_version.")
    version = data["schema_version"]
    if type(version) is not int or version < 1:
        raise RunFileError(f"{source} has the schema_version {version!r}; a whole number from 1 on was expected.")
    if version > SCHEMA_VERSION:
        raise RunFileError(
            f"{source} was written by a newer seqroof (schema {version}, this one reads up to {SCHEMA_VERSION}): "
            "read it with a newer checkout of seqroof (git pull)."
        )
    try:
        return Run.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise RunFileError(
            f"{source} is no valid run: {where}: {first['msg']} ({error.error_count()} fault(s) in all)."
        ) from error


def dumps(run: Run) -> str:
    """A run as JSON text, one field per line so that two runs can be compared by eye."""
    return json.dumps(run.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


def save(run: Run, folder: Path) -> Path:
    """Write `run.json` into a folder, whole or not at all; returns its path."""
    return write_atomically(folder / "run.json", dumps(run).encode())


def write_atomically(path: Path, content: bytes) -> Path:
    """Replace a file by way of a temporary file in the same folder; a reader sees the old content or the new."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `write_atomically` that a killed process left in the folder of a run."""
    for name in PRODUCTS:
        for left in folder.glob(f".{name}.*"):
            left.unlink(missing_ok=True)


def remove_products(folder: Path) -> None:
    """Remove what an earlier run left in a folder besides its journal."""
    for name in PRODUCTS:
        (folder / name).unlink(missing_ok=True)


def schema() -> dict[str, Any]:
    """The JSON Schema of `run.json`."""
    return Run.model_json_schema(mode="serialization")


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(schema(), indent=1) + "\n")
