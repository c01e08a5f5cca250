"""Training in several processes gives what one process gives, and ends as one."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import Tensor

from tabzoo.synthesis.pairs import Pairs
from tabzoo.training import loop, pretrain, setup
from tabzoo.training.checkpoint import CheckpointWriter, load_latest_checkpoint
from tabzoo.training.metrics import read_rows
from tabzoo.training.ranking import ScoreRanking
from tabzoo.training.ranks import Ranks, StopVote, launcher
from tabzoo.training.run import Run
from tabzoo.training.state import State

Arguments = Callable[..., list[str]]

# Batch-norm with fixed statistics: the one thing that depends on how a batch is divided is left out.
FROZEN = ("--batch-norm", "frozen", "--lr", "0.01", "--save-every", "2")
RANKING = ("--objective", "ranking", "--batch-norm", "frozen")


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells each process."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in places.items()}}


def run_in_two(
    arguments: list[str], logs: Path, prepare: Callable[[int], object] | None = None
) -> tuple[list[int], list[str]]:
    """Runs the command line in two forked processes, which have everything imported already.

    Args:
        arguments: The command line.
        logs: Folder for what they print.
        prepare: Called in each with its rank first.

    Returns:
        Exit codes, negative for a signal, and what each printed.
    """
    torch.set_num_threads(1)  # a forked child can't use the parent's threads
    logs.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        if (process := os.fork()) == 0:
            code = 99
            try:
                sys.stdout = sys.stderr = (logs / f"{rank}.log").open("w")
                os.environ.update(environment(rank, 2, port))
                if prepare:
                    prepare(rank)
                code = pretrain.main(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return codes, [(logs / f"{rank}.log").read_text() for rank in range(2)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(folder / "model.safetensors"))


def before_step(step: int, act: Callable[[], object]) -> None:
    """In this process, acts just before a step."""
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == step:
            act()
        return original(run, state, pairs)

    loop.optimise = optimise


def write_down_batches(folder: Path) -> Callable[[int], None]:
    """Lets each process append a line for each image that it trains on: step, class and hashes of the pair."""
    folder.mkdir()

    def prepare(rank: int) -> None:
        original = loop.optimise

        def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
            with (folder / f"{rank}").open("a") as file:
                for images in zip(pairs.normal, pairs.abnormal, pairs.classes, strict=True):
                    hashes = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
                    file.write(f"{state.step} {' '.join(hashes)}\n")
            return original(run, state, pairs)

        loop.optimise = optimise

    return prepare


@pytest.mark.slow
def test_two_processes_train_on_the_same_pairs_to_the_same_weights(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, init = tmp_path / "one", tmp_path / "two", tmp_path / "init.safetensors"
    torch.manual_seed(1)
    start = timm.create_model("test_resnet", num_classes=0).state_dict()
    for key, value in start.items():
        if key.endswith("running_var"):  # statistics that no process has by itself
            value.uniform_(0.8, 1.2)
    safetensors.torch.save_file(start, init)
    arguments = small(*FROZEN, "--init", str(init))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", loop.optimise)
        write_down_batches(tmp_path / "of one")(0)
        assert pretrain.main([*arguments, "--output", str(one)]) == 0
    prepare = write_down_batches(tmp_path / "of two")
    codes, printed = run_in_two([*arguments, "--output", str(two)], tmp_path / "logs", prepare)
    assert codes == [0, 0], printed
    alone, shared = weights(one), weights(two)
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-6, atol=1e-6, msg=key)
    of_one = (tmp_path / "of one" / "0").read_text().splitlines()
    of_each = [(tmp_path / "of two" / name).read_text().splitlines() for name in ("0", "1")]
    assert len(of_each[0]) == len(of_each[1]) == len(of_one) / 2
    assert sorted(of_each[0] + of_each[1]) == sorted(of_one)
    rows = [read_rows(folder / "metrics.jsonl") for folder in (one, two)]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]]
    for alone_row, shared_row in zip(*rows, strict=True):
        assert shared_row["loss"] == pytest.approx(alone_row["loss"], rel=1e-5)
    assert "in 2 processes" in printed[0]
    assert printed[1] == ""  # one of them speaks


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("--batch-norm", "frozen", "--projection", "linear", "--lr", "0.001", "--micro-batch", "3"),
        ("--projection", "residual", "--reduction", "sum", "--learn-temperature", "--batch-size", "17"),
        ("--batch-size", "17", "--micro-batch", "4"),  # shares of 9 and 8, in as many parts
    ],
)
def test_all_processes_hold_the_same_weights(small: Arguments, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Also with a head for each branch, parts of a batch, and batches that two can't divide evenly."""

    def prepare(rank: int) -> None:
        original = loop.save_state

        def save(run: Run, state: State, writer: CheckpointWriter) -> None:
            original(run, state, writer)
            torch.save(dict(state.objective.named_parameters()), tmp_path / f"{rank}.pt")

        loop.save_state = save

    codes, printed = run_in_two(small("--epochs", "1", *more), tmp_path / "logs", prepare)
    assert codes == [0, 0], printed
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    if "frozen" in more:  # neither dropout nor batch-norm's own statistics: one process gives the same
        alone = small("--epochs", "1", *more, "--output", str(tmp_path / "alone"))
        assert pretrain.main(alone) == 0
        shared = weights(tmp_path / "out")
        for key, value in weights(tmp_path / "alone").items():
            torch.testing.assert_close(shared[key], value, rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.slow
def test_a_batch_of_the_ranking_objective_is_one_class_in_every_process(small: Arguments, tmp_path: Path) -> None:
    """One step is that of the gradients of both shares, each scored by its own images, weighed by their number."""
    init, seed, rate = tmp_path / "init.safetensors", 5, 0.1
    torch.manual_seed(1)
    backbone = timm.create_model("test_resnet", num_classes=0)  # not what the second process would draw
    safetensors.torch.save_file(backbone.state_dict(), init)

    def prepare(rank: int) -> None:
        original = loop.optimise

        def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
            content = {"pairs": list(pairs), "weights": state.objective.state_dict()}
            torch.save(content, tmp_path / f"{rank} {state.step}.pt")
            return original(run, state, pairs)

        loop.optimise = optimise

    given = {
        "init": init,
        "seed": seed,
        "lr": rate,
        "batch-size": 9,
        "epochs": 1,
        "weight-decay": 0,
        "schedule": "constant",
    }
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    codes, printed = run_in_two(small(*RANKING, "--optimizer", "sgd", *flags), tmp_path / "logs", prepare)
    assert codes == [0, 0], printed
    steps = [[torch.load(tmp_path / f"{rank} {step}.pt", weights_only=True) for rank in (0, 1)] for step in range(3)]
    shares = [[Pairs(*of_rank["pairs"]) for of_rank in of_step] for of_step in steps]
    assert [[len(share.classes) for share in of_step] for of_step in shares] == [[5, 4]] * 3
    assert all(len(torch.cat([share.classes for share in of_step]).unique()) == 1 for of_step in shares)

    plain = ScoreRanking(backbone, name="test_resnet", side=32)
    trained = {name: value for name, value in plain.named_parameters() if value.requires_grad}
    expected = {name: value.detach().clone() for name, value in trained.items()}
    for share in shares[0]:
        loss = plain(share.normal, share.abnormal, share.mask).loss
        gradients = torch.autograd.grad(loss, list(trained.values()))
        for name, gradient in zip(trained, gradients, strict=True):
            expected[name] -= rate * len(share.classes) / 9 * gradient
    for of_rank in steps[1]:
        for name, value in expected.items():
            torch.testing.assert_close(of_rank["weights"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert any(bool((value - expected[name]).abs().max() > 1e-4) for name, value in trained.items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--batch-size", "7"),
            "--batch-size 7: --objective ranking needs at least 8 images a step. Type --batch-size 8 or",
        ),
        (
            ("--batch-size", "16", "--val-share", "0.6"),
            "class brushed_steel has 7 images to train on, too few for 2 processes: each needs at least 4 images",
        ),
    ],
)
def test_too_few_images_of_a_class_for_the_processes(
    small: Arguments, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    codes, printed = run_in_two(small(*RANKING, *flags), tmp_path / "logs")
    assert codes == [2, 2], printed
    assert message in " ".join(printed[0].split())
    assert not any("Traceback" in text for text in printed)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_resume_is_exact(
    small: Arguments, tmp_path: Path
) -> None:
    more = ["--epochs", "3", "--projection", "residual", "--val-share", "0.2"]
    whole = small(*more, "--output", str(tmp_path / "whole"))
    assert run_in_two(whole, tmp_path / "logs")[0] == [0, 0]

    def prepare(rank: int) -> None:
        if rank == 1:
            before_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))

    codes, printed = run_in_two(small(*more), tmp_path / "logs", prepare)
    assert codes == [128 + signal.SIGTERM] * 2, printed
    assert "Stopped after step 4 of" in printed[0]  # said after the third step, heard after the fourth
    assert "torchrun --nproc-per-node 2 -m tabzoo.training.pretrain" in printed[0].splitlines()[-1]
    assert run_in_two(small(*more, "--resume"), tmp_path / "logs")[0] == [0, 0]
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_says_so_and_ends(small: Arguments, tmp_path: Path) -> None:
    def prepare(rank: int) -> None:
        if rank == 1:
            before_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))

    codes, printed = run_in_two(small(*FROZEN), tmp_path / "logs", prepare)
    assert codes == [2, -signal.SIGKILL]
    assert "error: this process stopped because another process of the run exited" in printed[0]
    assert printed[0].splitlines()[-1].endswith("--resume")
    assert "Traceback" not in printed[0]
    state = load_latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert state is not None
    assert state["step"] == 2
    assert pretrain.main(small(*FROZEN, "--resume")) == 0  # with another number of processes, too


def of_one_rank(rank: int, root: Path, change: Callable[[Path], object]) -> Callable[[int], None]:
    """Lets one process see other images than the rest in the same folder: a changed copy of it."""

    def prepare(of: int) -> None:
        if of == rank:
            copy = Path(shutil.copytree(root, root.with_name("of one rank")))
            change(copy / "capsule" / "train" / "good")
            original = setup.find_samples
            setup.find_samples = lambda _, **how: original(copy, **how)  # type: ignore[attr-defined]

    return prepare


def repaint(folder: Path) -> None:
    for path in sorted(folder.iterdir())[:1]:
        Image.new("RGB", (48, 48), "red").save(path)


OTHER_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one more": (lambda folder: shutil.copy(folder / "000.png", folder / "999.png"), "number: 49 and 48"),
    "renamed": (lambda folder: (folder / "000.png").rename(folder / "999.png"), "names"),
    "repainted": (repaint, "contents"),
}


@pytest.mark.parametrize("change", OTHER_IMAGES)
def test_processes_that_see_other_images_stop_before_the_first_step(
    change: str, small: Arguments, tmp_path: Path, toy: Path
) -> None:
    function, what = OTHER_IMAGES[change]
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    arguments = small("--data", str(data), "--cache", "off")
    codes, printed = run_in_two(arguments, tmp_path / "logs", of_one_rank(1, data, function))
    assert codes == [2, 2], printed
    for text in printed:
        assert (
            f"--data {data}: process 1 does not see the same images as process 0. What differs is their {what}" in text
        )
        assert "Traceback" not in text
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_too_few_images_for_the_processes(small: Arguments, tmp_path: Path) -> None:
    codes, printed = run_in_two(small("--batch-size", "3"), tmp_path / "logs")
    assert codes[0] == 2
    assert "too few for 2 processes" in printed[0]
    assert "process 1: " in printed[1]


@pytest.mark.slow
def test_torchrun(small: Arguments, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tabzoo.training.pretrain", *small("--epochs", "1")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Made in") == 1
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_share_is_a_slice_of_the_batch() -> None:
    ids = torch.arange(100, 111)
    shares = [Ranks(rank=rank, size=3).share(ids) for rank in range(3)]
    assert torch.equal(torch.cat(shares), ids)
    assert [len(share) for share in shares] == [4, 4, 3]


def test_alone_nothing_is_asked_of_others() -> None:
    ranks = Ranks()
    assert ranks.is_first
    assert ranks.total(torch.tensor([2.0])).tolist() == [2.0]
    assert ranks.from_first(lambda: "made") == "made"
    ranks.agree("data", {"number": 3})
    ranks.leave()
    vote = StopVote(ranks)
    assert (vote(0), vote(15)) == (0, 15)


def test_the_command_to_type_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher() == ["python"]
    for name, value in {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert launcher() == ["torchrun", "--nnodes", "2", "--nproc-per-node", "4"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert launcher() == ["torchrun", "--nproc-per-node", "8"]
