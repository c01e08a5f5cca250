"""The flags of fit, score and export are a promise: this test is changed only when the promise is."""

import re

import pytest

from tabzoo.inspect.__main__ import main

FLAGS = {
    "fit": """amp backbone batch-size cache-dir class data device false-alarms layout max-memory method output overlap
        overwrite padim-channels padim-regularisation patchcore-neighbours patchcore-share patchcore-width seed
        shots size tile white-level workers""",
    "score": "batch-size device output watch workers",
    "export": "format output photos size",
}


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_stay(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = re.findall(r"^\W*--([a-z][a-z0-9-]*)", capsys.readouterr().out, re.M)
    assert sorted(set(shown)) == FLAGS[command].split()
