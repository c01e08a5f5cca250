"""The list of mistakes in mutants.py fits the code: it has to move along with it."""

import ast
import re
from pathlib import Path

import mutants
import pytest
from mutants import MUTANTS, ONLY_PINNED, ROOT, Mutant


def test_there_are_enough_and_few_are_left_to_pinned_values() -> None:
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    pinned = [mutant for mutant in MUTANTS if all(test.startswith(ONLY_PINNED) for test in mutant.tests.split())]
    assert 3 <= len(pinned) <= 5


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mistake_can_be_made(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    if mutant.file.endswith(".py"):
        ast.parse(text.replace(mutant.old, mutant.new))  # a mistake of meaning, not of grammar
    for test in mutant.tests.split():
        file, *names = test.split("::")
        assert (ROOT / file).is_file(), test
        for name in names:
            assert re.search(rf"(def|class) {name.split('[')[0]}\b", (ROOT / file).read_text(encoding="utf-8")), test


def test_a_survivor_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner tells a test that fails from one that passes, and takes the mistake back."""
    (tmp_path / "one.py").write_text("VALUE = 1\n")
    (tmp_path / "test_one.py").write_text("import one\ndef test_one() -> None:\n    assert one.VALUE < 3\n")
    noticed, survivor = (Mutant("m", "one.py", "1", new, "test_one.py") for new in ("3", "2"))
    assert not mutants.survives(tmp_path, noticed)
    assert mutants.survives(tmp_path, survivor)
    assert (tmp_path / "one.py").read_text() == "VALUE = 1\n"
    missing = Mutant("m", "one.py", "1", "2", "test_two.py")
    with pytest.raises(SystemExit, match="did not run"):
        mutants.survives(tmp_path, missing)
