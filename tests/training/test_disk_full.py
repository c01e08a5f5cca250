"""A disk that fills up: the file and the cause are named, nothing half-written has a final name, and what was there stays."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tabzoo.errors import WriteError
from tabzoo.jsonl import append_line
from tabzoo.synthesis.pairs import Pairs, RawPairs
from tabzoo.training import checkpoint, figures, loop, metrics, output, pretrain
from tabzoo.training.checkpoint import CheckpointWriter
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run
from tabzoo.training.state import State
from tabzoo.training.text import TextFeatures

Arguments = Callable[..., list[str]]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files can't grow over this many bytes: writing more is an error of the system, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def texts() -> TextFeatures:
    return TextFeatures(
        **{"normal": torch.zeros(2, 64), "abnormal": torch.ones(2, 64), "words": {"a": "a", "b": "b"}},
        **{"text_model": "m", "text_pretrained": "p", "prompts_sha256": "s"},
    )


def save_checkpoint(folder: Path) -> None:
    checkpoint.save_checkpoint(folder, 7, {"modules": {"a": torch.zeros(1000)}})


def draw_curves(folder: Path) -> None:
    figures.draw_curves(
        folder / "curves.png", [{"step": 1, "loss": 1, "accuracy_normal": 1, "accuracy_abnormal": 1}], []
    )


def draw_samples(folder: Path) -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    figures.draw_samples(folder / "samples.png", RawPairs(image, image, image[:, :1], torch.zeros(1).long()), ["a"])


def write_run(folder: Path) -> None:
    output.write_run(folder, Recipe(), texts(), command="c", device=torch.device("cpu"))


WRITERS: list[tuple[Callable[[Path], object], str]] = [
    (save_checkpoint, "step_00000007.pt"),
    (lambda folder: texts().save(folder / "texts.safetensors"), "texts.safetensors"),
    (write_run, "run.json"),
    (lambda folder: append_line(folder / "m.jsonl", {"step": 1, "loss": "x" * 500}), "m.jsonl"),
    (lambda folder: metrics.cut_back(folder / "rows.jsonl", 20), "rows.jsonl"),
    (draw_curves, "curves.png"),
    (draw_samples, "samples.png"),
]


@pytest.mark.parametrize(("write", "name"), WRITERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_that_does_not_fit(write: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(30)))
    (tmp_path / "m.jsonl").write_text('{"step": 0}\n')
    for old in ("step_00000007.pt", "texts.safetensors", "run.json", "curves.png"):
        (tmp_path / old).write_text("of before")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(200), pytest.raises(WriteError, match=f"^{tmp_path / name}: can't be written: .*File too large"):
        write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(tmp_path)  # once there is room


def test_a_disk_that_fills_up_in_a_run_costs_the_steps_since_the_last_checkpoint(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = loop.save_state

    def save(run: Run, state: State, writer: CheckpointWriter) -> None:
        with room_for(1000 if state.step == 4 else 1 << 30):
            original(run, state, writer)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", save)
        assert pretrain.main(small("--save-every", "2")) == 2
    message = capsys.readouterr().err
    folder = tmp_path / "out" / "checkpoints"
    assert f"error: {folder / 'step_00000004.pt'}: can't be written: File too large. Earlier checkpoints" in message
    assert message.splitlines()[-1].strip().endswith("--resume")
    assert "Traceback" not in message
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000002.json", "step_00000002.pt"]
    assert pretrain.main(small("--save-every", "2", "--resume")) == 0


def test_an_image_that_goes_away_in_a_run_that_keeps_none(
    small: Arguments, tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(toy, tmp_path / "data")
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == 3:
            (data / "capsule").rename(tmp_path / "capsule")
        return original(run, state, pairs)

    arguments = small("--data", str(data), "--cache", "off", "--save-every", "2")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", optimise)
        assert pretrain.main(arguments) == 2
    message = capsys.readouterr().err
    assert f"error: {data / 'capsule' / 'train' / 'good'}" in message
    assert ".png: no such file. Earlier checkpoints are complete. Fix that, then continue:" in message
    (tmp_path / "capsule").rename(data / "capsule")
    assert pretrain.main([*arguments, "--resume"]) == 0


def test_a_disk_that_is_full_at_the_start_leaves_the_folder_as_it_was(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = TextFeatures.save

    def save(self: TextFeatures, path: Path) -> None:
        with room_for(100 if path.is_relative_to(tmp_path / "out") else 1 << 30):
            original(self, path)

    monkeypatch.setattr(TextFeatures, "save", save)
    assert pretrain.main(small()) == 2
    assert f"{tmp_path / 'out' / 'text_features.safetensors'}: can't be written: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_weights_of_a_finished_run_do_not_fit(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = output.write_folder

    def write_folder(*arguments: object, **named: object) -> None:
        with room_for(1000):
            original(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_folder", write_folder)
        assert pretrain.main(small()) == 2
    assert f"{tmp_path / 'out' / 'model.safetensors'}: can't be written: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "tabzoo.json").exists()
    assert pretrain.main(small("--resume")) == 0


def test_a_toy_factory_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").touch()
    with room_for(1000):
        assert pretrain.main(["--recipe", "quickstart", "--output", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out' / 'toy_factory'}: can't be written: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
