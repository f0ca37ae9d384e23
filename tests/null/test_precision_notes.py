"""The precision notes in the files of lstm, gru and rnn say what a run on this machine finds."""

import subprocess
import sys
from pathlib import Path

import pytest

from seqroof.scripts.precision_notes import (
    BEGIN,
    COMMAND,
    DTYPES,
    END,
    KERNELS,
    ROWS,
    differences,
    measured,
    read,
    written,
)

ROOT = Path(__file__).resolve().parents[2]
NOTED = {(row, dtype, T) for row, steps in ROWS.items() for dtype in DTYPES for T in steps}
names = pytest.mark.parametrize("name", KERNELS)


def source(name: str) -> str:
    return (ROOT / "kernels" / f"{name}.py").read_text()


@names
def test_the_notes_are_whole_and_say_how_they_were_made(name: str) -> None:
    text = source(name)
    assert text.count(BEGIN) == text.count(END) == 1
    notes = text[text.index(BEGIN) : text.index(END)]
    assert f"Written by {COMMAND}" in notes and "torch" in notes
    assert len(notes.splitlines()) < 12 and max(map(len, notes.splitlines())) <= 120
    stated = read(text)
    assert set(stated) == NOTED
    for (row, dtype, T), error in stated.items():
        assert error >= stated.get((row, dtype, T // 10), 0.0), "an error within more steps is no smaller"
    for row, steps in ROWS.items():
        assert stated[row, "fp32", steps[-1]] < stated[row, "fp16", 1] < stated[row, "bf16", 1]


@names
def test_the_first_hundred_steps_are_as_noted(name: str) -> None:
    found = measured(name, {"reference": (1, 100), "torch": (1, 100)})
    assert len(found) == 12
    assert differences(name, read(source(name)), found) == []


def _check(steps: str) -> None:
    command = [sys.executable, "-m", "seqroof.scripts.precision_notes", "--check", steps]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


def test_the_first_step_is_as_noted_in_the_interpreter_too() -> None:
    _check("1")


@pytest.mark.long
def test_the_first_hundred_steps_are_as_noted_in_the_interpreter_too() -> None:
    _check("100")


def test_notes_are_read_as_they_are_written() -> None:
    errors = {case: 1e-3 * index for index, case in enumerate(sorted(NOTED), 1)}
    text = f"import torch\n\n{written(errors, 'by hand')}\nx = 1\n"
    assert read(text) == pytest.approx(errors, rel=0.05)


def test_another_error_is_told() -> None:
    stated = {("torch", "bf16", 1): 2e-3, ("torch", "bf16", 100): 4e-3}
    assert differences("gru", stated, {("torch", "bf16", 1): 5.9e-3, ("torch", "bf16", 100): 1.4e-3}) == []
    (larger,) = differences("gru", stated, {("torch", "bf16", 1): 6.1e-3})
    assert "gru torch bf16: the error within 1 steps is 6.1e-03, and the file states 2.0e-03" in larger
    assert len(differences("gru", stated, {("torch", "bf16", 100): 1.3e-3})) == 1
    assert "no error" in differences("gru", stated, {("torch", "fp32", 1): 1e-7})[0]
    assert len(differences("gru", stated, {("torch", "bf16", 1): float("nan")})) == 1


def test_a_file_without_notes_is_refused() -> None:
    with pytest.raises(ValueError, match="no precision notes found"):
        read("import torch\n")
    with pytest.raises(ValueError, match="no line of dtypes"):
        read(f"{BEGIN}nothing\n{END}")
