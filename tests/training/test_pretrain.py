"""Pre-training from end to end on generated images."""

import functools
import json
import logging
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import yaml
from PIL import Image
from torch import Tensor

from tabzoo.synthesis.pairs import Pairs
from tabzoo.training import checkpoint as pretrain_checkpoint
from tabzoo.training import loop, pretrain
from tabzoo.training.metrics import read_rows
from tabzoo.training.recipe import load_recipe
from tabzoo.training.run import Run
from tabzoo.training.state import State

Arguments = Callable[..., list[str]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(folder / "model.safetensors"))


def assert_equal_weights(first: Path, second: Path) -> None:
    """To the bit, file header and all."""
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_the_loaded_model_gives_the_features_of_the_trained_one(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[torch.nn.Module] = []
    original = pretrain.output.write_results

    def write_results(folder: Path, backbone: torch.nn.Module, *more: object, **named: object) -> None:
        kept.append(backbone)
        original(folder, backbone, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrain.output, "write_results", write_results)
    assert pretrain.main(small()) == 0
    image = torch.rand(2, 3, 64, 64)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(loaded(image), kept[0].eval()(image))


def test_the_last_step_is_logged_however_few_there_are(small: Arguments, tmp_path: Path) -> None:
    assert pretrain.main(small("--log-every", "1000")) == 0
    (row,) = read_rows(tmp_path / "out" / "metrics.jsonl")
    assert row["step"] == 6  # two epochs of three


def test_equal_seeds_give_equal_weights(small: Arguments, tmp_path: Path) -> None:
    """Whatever the number of workers, wherever the images are kept, and whether that cache was there before."""
    disk = ["--cache", "disk", "--cache-dir", str(tmp_path / "cache")]
    runs = {
        "ram": [],
        "workers": ["--workers", "2", "--log-every", "3"],
        "disk": disk,
        "disk again": disk,
        "off": ["--cache", "off", "--cache-dir", str(tmp_path / "none"), "--workers", "2"],
        "another seed": ["--seed", "1"],
    }
    for name, more in runs.items():
        assert pretrain.main(small("--output", str(tmp_path / name), *more)) == 0
    for name in ("workers", "disk", "disk again", "off"):
        assert_equal_weights(tmp_path / "ram", tmp_path / name)
    assert not torch.equal(
        weights(tmp_path / "ram")["conv1.0.weight"], weights(tmp_path / "another seed")["conv1.0.weight"]
    )


def test_the_saved_recipe_repeats_the_run(small: Arguments, tmp_path: Path, toy: Path) -> None:
    assert pretrain.main(small()) == 0
    first = tmp_path / "out"
    arguments = ["--recipe", str(first / "recipe.yaml"), "--data", str(toy), "--output", str(tmp_path / "again")]
    features = first / "text_features.safetensors"
    assert pretrain.main([*arguments, "--text-pretrained", str(features)]) == 0
    assert_equal_weights(first, tmp_path / "again")


@pytest.mark.parametrize(
    "more",
    [
        ["--objective", "joint"],
        [
            "--projection",
            "residual",
            "--reduction",
            "sum",
            "--learn-temperature",
            "--repeats",
            "2",
            "--schedule",
            "cosine_authors",
        ],
        ["--backbone", "mobilenetv3_small_100", "--projection", "linear", "--micro-batch", "5"],
        ["--amp", "bf16", "--channels-last", "--sampling", "balanced", "--optimizer", "adamw", "--lr", "0.001"],
        ["--synthesis", "mix", "--mix-weights", "nsa", "1", "perlin", "2", "mask", "1", "--mask-num-blocks", "2"],
        ["--synthesis", "cutpaste", "--cutpaste-variant", "union", "--resize", "56", "--crop", "48"],
        ["--synthesis", "nsa", "--nsa-blend", "normal", "--no-nsa-shift", "--nsa-num-patches", "3", "--init", "random"],
    ],
)
def test_settings_run(small: Arguments, tmp_path: Path, more: list[str]) -> None:
    assert pretrain.main(small(*more)) == 0
    rows = read_rows(tmp_path / "out" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    weighed = 1.0 if "sum" in more else 0.5
    for row in rows:
        assert row["loss"] == pytest.approx(weighed * (row["loss_normal"] + row["loss_abnormal"]))
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    width = 1024 if "mobilenetv3_small_100" in more else 96  # wider than the texts, or as wide
    assert loaded.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, width)


def test_compiled_it_trains_the_same(small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that compiles nothing, for speed: what is tested is the graph and the names of the weights."""
    original, graphs = torch.nn.Module.compile, []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend=backend))
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert pretrain.main(small("--output", str(tmp_path / name), "--epochs", "1", *more)) == 0
    assert graphs
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    for key in plain:
        torch.testing.assert_close(plain[key], compiled[key], rtol=1e-4, atol=1e-5)


def test_micro_batches_add_up_to_the_whole_gradient(small: Arguments, tmp_path: Path) -> None:
    """With batch-norm's statistics frozen the parts' gradients are the whole batch's."""
    more = ["--batch-norm", "frozen", "--epochs", "1", "--lr", "0.001"]
    for name, parts in (("whole", []), ("parts", ["--micro-batch", "5"])):
        assert pretrain.main(small("--output", str(tmp_path / name), *more, *parts)) == 0
    whole, parted = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key in whole:
        torch.testing.assert_close(whole[key], parted[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", ["2", "3", "17"])
def test_micro_batches_of_two_leave_no_image_alone(small: Arguments, batch_size: str) -> None:
    """Batch-norm can't train on one image of one pixel, which is what is left of 32 x 32."""
    assert pretrain.main(small("--epochs", "1", "--batch-size", batch_size, "--micro-batch", "2")) == 0


def test_names_of_folders_that_are_not_utf_8(
    small: Arguments, tmp_path: Path, toy: Path, make_text_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = os.path.join(os.fsencode(tmp_path), b"caf\xe9")  # of the data: fine; of a class: refused
    os.mkdir(data)
    for name in (b"hex_nut", b"cap\xe9"):
        os.symlink(toy / "hex_nut", os.path.join(data, name))
    arguments = small("--data", os.fsdecode(data), "--epochs", "1")
    assert r"the name of the class 'cap\udce9' is not UTF-8. Rename its folder" in refused(arguments, capsys)
    os.rename(os.path.join(data, b"cap\xe9"), os.path.join(data, b"capsule"))
    assert pretrain.main([*arguments, "--text-pretrained", str(make_text_file("capsule", "hex_nut"))]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["data"] == rf"{tmp_path}/caf\xe9"
    output = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xe9"))
    assert (
        pretrain.main([*arguments, "--text-pretrained", str(make_text_file("capsule", "hex_nut")), "--output", output])
        == 0
    )
    assert r"\udce9" in capsys.readouterr().out


# --- stopping and going on


def stopped_after(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Sends the process a signal in the middle of a step."""
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == step - 1:
            os.kill(os.getpid(), number)
        return original(run, state, pairs)

    monkeypatch.setattr(loop, "optimise", optimise)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_goes_on_to_the_same_weights(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    more = ["--epochs", "3", "--projection", "residual", "--val-share", "0.2"]
    assert pretrain.main(small("--output", str(tmp_path / "whole"), *more)) == 0
    with monkeypatch.context() as patch:
        stopped_after(4, patch, number)
        assert pretrain.main(small(*more)) == 128 + number
    printed = capsys.readouterr().out
    assert "Stopped after step 4 of" in printed
    assert "--resume" in printed.splitlines()[-1]
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert pretrain.main(small(*more, "--resume")) == 0
    assert_equal_weights(tmp_path / "whole", tmp_path / "out")
    for name in ("metrics.jsonl", "validation.jsonl"):
        whole, gone_on = (read_rows(tmp_path / folder / name) for folder in ("whole", "out"))
        for row in (*whole, *gone_on):
            row.pop("images_per_second", None)
        assert whole == gone_on


def test_resume_without_a_checkpoint_starts_and_when_finished_does_nothing(
    small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain.main(small("--resume")) == 0
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert pretrain.main(small("--resume")) == 0
    assert capsys.readouterr().out == f"The run in {tmp_path / 'out'} is finished; nothing to do.\n"
    assert pretrain.main(small("--resume", "--epochs", "5", "--lr", "0.01")) == 0
    printed = capsys.readouterr().out
    assert "It was made with other settings: epochs 2, not 5; lr 0.05, not 0.01. For these, type --overwrite" in printed
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_resume_with_another_recipe_or_other_images_is_refused(
    small: Arguments, tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small())
    assert pretrain.main(small("--resume", "--lr", "0.01")) == 2
    assert "another recipe: lr 0.05 -> 0.01. Leave" in capsys.readouterr().err
    assert pretrain.main(small("--resume", "--white-level", "4095")) == 2
    assert "another recipe: white_level None -> 4095.0. Leave" in capsys.readouterr().err
    extra = toy / "capsule" / "train" / "good" / "999.png"
    Image.new("RGB", (48, 48)).save(extra)
    try:
        assert pretrain.main(small("--resume")) == 2
    finally:
        extra.unlink()
    assert "started with other images" in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["ram", "off"])
def test_resume_on_other_images_under_the_same_names_is_refused(
    cache: str,
    small: Arguments,
    tmp_path: Path,
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    arguments = small("--data", str(data), "--cache", cache)
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(arguments)
    good = data / "capsule" / "train" / "good"
    (good / "000.png").rename(good / "aside")
    (good / "001.png").rename(good / "000.png")
    (good / "aside").rename(good / "001.png")
    message = refused([*arguments, "--resume"], capsys)
    assert f"the run in {tmp_path / 'out'} was started with images of the same names but other contents" in message
    assert "type --overwrite to start again" in message
    copied = Path(shutil.copytree(toy, tmp_path / "copied"))  # the same contents elsewhere are the same images
    assert pretrain.main([*arguments, "--data", str(copied), "--resume"]) == 0


def test_resume_with_other_textures_is_refused(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "textures").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "textures" / "1.png")
    arguments = small("--synthesis", "perlin", "--perlin-textures", str(tmp_path / "textures"))
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(arguments)
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "textures" / "1.png")
    assert "(or with other textures)" in refused([*arguments, "--resume"], capsys)


def stopped_state(small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """The checkpoints of a run that stopped after two steps, and what the last one holds."""
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small())
    folder = tmp_path / "out" / "checkpoints"
    state = pretrain_checkpoint.load_latest_checkpoint(folder)
    assert state is not None
    return folder, state


def test_a_checkpoint_that_does_not_say_contents_goes_on(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions wrote them."""
    folder, state = stopped_state(small, tmp_path, monkeypatch)
    del state["contents"]
    pretrain_checkpoint.save_checkpoint(folder, state.pop("step"), state)
    assert pretrain.main(small("--resume")) == 0


def test_a_changed_recipe_goes_on_when_allowed(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small("--schedule", "constant"))
    assert pretrain.main(small("--schedule", "constant", "--resume", "--lr", "0.01", "--allow-recipe-change")) == 0
    rates = [row["lr"] for row in read_rows(tmp_path / "out" / "metrics.jsonl")]
    assert rates == [0.05, 0.05] + [0.01] * (len(rates) - 2)
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small("--overwrite"))
    more = ["--optimizer", "adamw", "--lr", "0.001", "--allow-recipe-change"]
    assert pretrain.main(small("--resume", *more)) == 0
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small("--overwrite"))
    assert (
        pretrain.main(small("--resume", "--backbone", "test_resnet", "--projection", "linear", "--allow-recipe-change"))
        == 2
    )
    assert "does not fit the changed recipe" in capsys.readouterr().err


def test_a_checkpoint_whose_content_does_not_fit_its_own_recipe_is_named(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, state = stopped_state(small, tmp_path, monkeypatch)
    state["modules"].pop("backbone.conv1.0.weight")
    pretrain_checkpoint.save_checkpoint(folder, 3, {**state, "step": 3})
    message = refused(small("--resume"), capsys)
    assert f"the checkpoint of step 3 in {folder} is damaged" in message
    assert "backbone.conv1.0.weight" in message
    assert "changed recipe" not in message
    for ending in ("pt", "json"):
        (folder / f"step_00000003.{ending}").unlink()
    assert pretrain.main(small("--resume")) == 0


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # torch's, where the first step overflows
@pytest.mark.parametrize(("begun", "then"), [("off", "fp16"), ("fp16", "off")])
def test_a_run_goes_on_with_and_without_float16(
    small: Arguments, monkeypatch: pytest.MonkeyPatch, begun: str, then: str
) -> None:
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small("--amp", begun))
    assert pretrain.main(small("--amp", then, "--resume", "--allow-recipe-change")) == 0


def test_a_reader_of_the_output_that_goes_away_ends_no_run(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `2>&1 | head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        assert pretrain.main(small()) == 0
    assert len(read_rows(tmp_path / "out" / "metrics.jsonl")) == 6


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_weights(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at 12 moments, six random ones and six while a checkpoint is written; then the bytes of a run never killed."""
    more = ["--epochs", "9", "--save-every", "1", "--projection", "residual"]
    torch.set_num_threads(1)  # a forked child can't use the parent's threads, and their number decides the last bits
    calls = [0]
    with monkeypatch.context() as patch:
        _on_each_call(patch, lambda: calls.append(calls.pop() + 1))
        assert pretrain.main(small("--output", str(tmp_path / "whole"), *more)) == 0
    sys.setprofile(None)
    draws, a_step = random.Random(0), calls[0] // 27
    for killed in range(12):
        moment = draws.randrange(2 * a_step)
        process = os.fork()
        if process == 0:  # a child with everything imported already: each start would take seconds
            if killed % 2:
                _die_while_saving()
            else:
                _die_after(moment)
            os._exit(pretrain.main(small(*more, "--resume")))
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status), "the run came to its end before it was killed 12 times"
    assert pretrain.main(small(*more, "--resume")) == 0
    assert_equal_weights(tmp_path / "whole", tmp_path / "out")
    steps = [row["step"] for row in read_rows(tmp_path / "out" / "metrics.jsonl")]
    assert steps == list(range(1, 28))


def _on_each_call(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """From the first step on, acts at each call of a function, Python's or C's."""
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        sys.setprofile(lambda *_: act())
        return original(run, state, pairs)

    patch.setattr(loop, "optimise", optimise)


def _die_after(calls: int) -> None:
    """From now on this process is killed at that call after its first step has begun."""
    left = [calls]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _on_each_call(pytest.MonkeyPatch(), count)


def _die_while_saving() -> None:
    """From now on this process is killed when half of its next checkpoint is written."""

    def dying(path: Path, content: bytes) -> None:
        Path(f"{path}.tmp").write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    pretrain_checkpoint._write = dying


# --- bad input: one line that says what to do, exit code 2, no traceback


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert pretrain.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.splitlines()[-1].strip()
    assert "Traceback" not in message
    return message[message.index("error: ") :]


def test_no_images(small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no images" in refused(small("--data", str(tmp_path / "empty")), capsys)
    assert "nowhere" in refused(small("--data", str(tmp_path / "nowhere")), capsys)
    assert "--data is missing" in refused(["--recipe", "resnet18.tab_mvtec", "--output", str(tmp_path / "o")], capsys)


def test_one_class_prints_the_command_that_trains(
    small: Arguments, tmp_path: Path, toy: Path, make_text_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "capsule").symlink_to(toy / "capsule")
    arguments = small("--data", str(tmp_path / "single"), "--text-pretrained", str(make_text_file("capsule")))
    message = refused(arguments, capsys)
    assert "one class, capsule" in message
    command = message.splitlines()[-1].strip()
    assert command.startswith("python -m tabzoo.training.pretrain --recipe quickstart")
    printed = command.split()[3:]
    assert printed[-2:] == ["--objective", "joint"]
    assert pretrain.main(printed) == 0
    rows = read_rows(tmp_path / "out" / "metrics.jsonl")
    assert rows[-1]["loss"] != rows[0]["loss"]


def test_a_class_with_one_image(
    small: Arguments, tmp_path: Path, toy: Path, make_text_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    good = tmp_path / "data" / "lonely" / "train" / "good"
    good.mkdir(parents=True)
    (good / "000.png").write_bytes((toy / "hex_nut" / "train" / "good" / "000.png").read_bytes())
    (tmp_path / "data" / "capsule").symlink_to(toy / "capsule")
    caplog.set_level(logging.WARNING)
    texts = str(make_text_file("capsule", "lonely"))
    assert pretrain.main(small("--data", str(tmp_path / "data"), "--text-pretrained", texts)) == 0
    assert "Only one image of lonely" in caplog.text


def test_weights_are_missed_before_any_image_is_decoded(
    small: Arguments, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("tabzoo.training.setup.open_images", decoded)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.remote.try_to_load_from_cache", lambda *_: None)
    assert "--init FILE" in refused(small("--init", "pretrained", "--overwrite"), capsys)
    message = refused(small("--text-pretrained", "laion400m_e32", "--overwrite", "--projection", "linear"), capsys)
    assert "text weights laion400m_e32 of ViT-B-16 can't be fetched" in message


def test_a_white_level_reaches_the_images(
    small: Arguments, tmp_path: Path, grey_and_deep: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """12 bits in files of 16 train as the same images in 8 bits do."""
    grey, deep = map(str, grey_and_deep)
    folders = [tmp_path / "grey out", tmp_path / "deep out"]
    how = ("--epochs", "1", "--output")
    assert pretrain.main(small(*how, str(folders[0]), "--data", grey)) == 0
    assert pretrain.main(small(*how, str(folders[1]), "--data", deep, "--white-level", "4080")) == 0
    assert_equal_weights(*folders)
    assert not caplog.text
    assert pretrain.main(small(*how, str(tmp_path / "dark"), "--data", deep)) == 0
    assert "3 classes (brushed_steel, capsule, hex_nut)" in caplog.text
    assert "Use --white-level 4095 if that is the camera's white" in caplog.text
    assert yaml.safe_load((folders[1] / "recipe.yaml").read_text())["white_level"] == 4080


def test_an_unreadable_file(
    small: Arguments, tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("brushed_steel", "capsule", "hex_nut"):
        good = tmp_path / "data" / name / "train" / "good"
        good.mkdir(parents=True)
        for file in (toy / name / "train" / "good").iterdir():
            (good / file.name).write_bytes(file.read_bytes())
    broken = tmp_path / "data" / "capsule" / "train" / "good" / "003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    caplog.set_level(logging.WARNING)
    arguments = small("--data", str(tmp_path / "data"))
    assert pretrain.main(arguments) == 0
    assert str(broken) in caplog.text
    assert json.loads((tmp_path / "out" / "tabzoo.json").read_text())["training"]["images"] == 3 * 16 - 1
    assert "003.png" in refused([*arguments, "--overwrite", "--strict"], capsys)


def test_a_single_image(
    small: Arguments, tmp_path: Path, toy: Path, make_text_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "capsule").mkdir(parents=True)
    (tmp_path / "data" / "capsule" / "1.png").write_bytes((toy / "capsule" / "train" / "good" / "000.png").read_bytes())
    texts = str(make_text_file("capsule"))
    message = refused(
        small("--data", str(tmp_path / "data"), "--text-pretrained", texts, "--objective", "joint"), capsys
    )
    assert "one image to train on; expected at least two" in message


def test_output_folder_in_use(small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "thesis.txt"
    mine.write_text("mine")
    message = refused(small(), capsys)
    assert "not empty (thesis.txt)" in message
    assert "--resume" in message
    assert "--overwrite" in message
    assert "is not a run of tabzoo" in refused(small("--overwrite"), capsys)
    assert mine.read_text() == "mine"
    assert "can't be used as a folder" in refused(small("--output", str(mine)), capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_absent(small: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    assert "torch finds no CUDA device" in refused(small("--device", "cuda"), capsys)


def test_widths_that_do_not_meet(small: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--projection linear" in refused(small("--backbone", "resnet50"), capsys)


def test_a_loss_that_is_no_number_stops_the_run(
    small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == 3:
            with torch.no_grad():
                next(state.objective.backbone.parameters()).fill_(torch.nan)
        return original(run, state, pairs)

    monkeypatch.setattr(loop, "optimise", optimise)
    message = refused(small("--save-every", "1", "--log-every", "10"), capsys)
    assert "not a finite number at step 4" in message
    assert message.count(".png") == 4
    assert "and 12 more" in message
    assert "step_00000003.pt" in message  # the last good one
    assert sorted(entry.name for entry in (tmp_path / "out" / "checkpoints").glob("*.pt"))[-1] == "step_00000003.pt"


def test_a_signal_outside_the_main_thread_is_no_trouble(small: Arguments) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(pretrain.main(small("--epochs", "1"))))
    thread.start()
    thread.join()
    assert codes == [0]


# --- mixed precision


def on_machine(amp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this machine's device has, or lacks, bfloat16 instructions."""
    monkeypatch.setattr("tabzoo.compute._bf16_support", lambda _: (amp == "bf16", f"this is a test of {amp}"))


def recorded(folder: Path) -> tuple[str, str, str, str]:
    """Mixed precision in the record, the recipe's digest there, and mixed precision in recipe.yaml and the checkpoint."""
    recipe = json.loads((folder / "tabzoo.json").read_text())["recipe"]
    state = pretrain_checkpoint.load_latest_checkpoint(folder / "checkpoints")
    assert state is not None
    return recipe["amp"], recipe["sha256"], load_recipe(str(folder / "recipe.yaml")).amp, state["recipe"]["amp"]


def test_amp_auto_is_resolved_and_the_digest_is_of_what_was_written(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = set()
    for amp in ("off", "bf16"):
        on_machine(amp, monkeypatch)
        assert pretrain.main(small("--amp", "auto", "--output", str(tmp_path / amp))) == 0
        assert f"amp auto: {amp}, because this is a test of {amp}." in capsys.readouterr().out.splitlines()
        (of_record, digest, of_recipe, of_checkpoint) = recorded(tmp_path / amp)
        assert (of_record, of_recipe, of_checkpoint) == (amp, amp, amp)
        digests.add(digest)
    assert len(digests) == 1  # the same recipe on both machines
    assert pretrain.main(small("--output", str(tmp_path / "given"), "--amp", "off")) == 0
    assert recorded(tmp_path / "given")[1] not in digests
    assert_equal_weights(tmp_path / "given", tmp_path / "off")
    assert weights(tmp_path / "off")["conv1.0.weight"].ne(weights(tmp_path / "bf16")["conv1.0.weight"]).any()


@pytest.mark.parametrize(("begun", "here"), [("off", "bf16"), ("bf16", "off")])
def test_a_run_keeps_its_amp_on_another_kind_of_machine(
    begun: str,
    here: str,
    small: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_machine(begun, monkeypatch)
    assert pretrain.main(small("--amp", "auto", "--output", str(tmp_path / "whole"))) == 0
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        pretrain.main(small("--amp", "auto"))
    assert caplog.text == ""
    on_machine(here, monkeypatch)
    assert pretrain.main(small("--amp", "auto", "--resume")) == 0
    assert f"This run began with amp {begun}, on another kind of device, and keeps it." in caplog.text
    assert recorded(tmp_path / "out") == recorded(tmp_path / "whole")
    assert_equal_weights(tmp_path / "whole", tmp_path / "out")


def test_float16_whose_first_steps_overflow(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The scaler leaves these steps out; the run says nothing of it and trains in the others."""
    scales: list[float] = []

    class Scaler(torch.amp.GradScaler):
        def update(self, new_scale: float | Tensor | None = None) -> None:
            super().update(new_scale)
            scales.append(self.get_scale())

    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(Scaler, init_scale=2.0**20))
    assert pretrain.main(small("--amp", "fp16")) == 0
    assert scales[0] == 2.0**19  # halved: the first step was left out
    assert scales[-1] == scales[-2]
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]
    weights = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
