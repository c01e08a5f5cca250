"""The first minutes on a GPU: what only a device can show, each line with what is expected.

    python perf/gpu_check.py OUT [STEP ...] [--dry-run]

Every step takes less than four minutes of an H100, by estimate. Its lines go to OUT/checks.jsonl, and a step that is there
already is not run again unless it is named, so a job that was cut off continues. Lines that miss what is expected are
printed again at the end, and the exit code is then 1. Nothing needs the network. `--dry-run` runs all steps on the CPU with
tiny settings: it tests this script, and its numbers and verdicts mean nothing.
"""

import argparse
import hashlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from tabzoo.data.class_words import class_words
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.training.metrics import read_rows
from tabzoo.training.prompts import load_prompts
from tabzoo.training.text import TextFeatures

SYNTHESES = ("cutpaste", "perlin", "mask", "mix")


class Line(NamedTuple):
    """One thing that was looked at."""

    what: str
    found: str
    expected: str
    passed: bool | None  # None: for information


class Check:
    """What the steps share: the folder, the data in it, and how runs are started."""

    def __init__(self, out: Path, *, dry: bool) -> None:
        self.out, self.dry, self.device = out, dry, "cpu" if dry else "cuda"
        os.environ["TABZOO_CACHE"] = str(out / "cache")
        self.small = (
            ["--backbone", "test_resnet", "--resize", "40", "--crop", "32", "--batch-size", "16"] if dry else []
        )

    def prepare(self) -> None:
        """3,630 images of six classes, as many as MVTec AD has, and made-up text features of them."""
        texts = self.out / "text.safetensors"
        if texts.exists():
            return
        train, size = (8, 40) if self.dry else (605, 256)
        root = make_toy_factory(self.out / "toy", size=size, train=train, test_good=4, test_defect=4)
        classes = find_samples(root).classes
        normal, abnormal = F.normalize(torch.randn(2, len(classes), 96 if self.dry else 512), dim=-1)
        TextFeatures(
            normal=normal,
            abnormal=abnormal,
            words=class_words(classes, {}, "mvtec"),
            text_model="ViT-B-16",
            text_pretrained="made_up",
            prompts_sha256=load_prompts("tab").digest(),
        ).save(texts)

    def command(self, name: str, *flags: str) -> list[str]:
        """The command line that trains into a folder of this name."""
        texts = ["--text-model", "ViT-B-16", "--text-pretrained", str(self.out / "text.safetensors")]
        fixed = ["--recipe", "resnet18.tab_mvtec", "--init", "random", "--data", str(self.out / "toy"), *texts]
        fixed += ["--output", str(self.out / name), "--device", self.device, *self.small]
        return ["-m", "tabzoo.training.pretrain", *fixed, *flags]

    def train(self, name: str, *flags: str, start: tuple[str, ...] = (sys.executable,), limit: float = 230) -> float:
        """Trains, and returns the seconds that it took.

        Raises:
            RuntimeError: The run failed or took too long; the text has its last lines.
        """
        command = [*start, *self.command(name, *flags), *([] if "--resume" in flags else ["--overwrite"])]
        begun = time.perf_counter()
        with (self.out / f"{name}.log").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit).returncode
        if code:
            raise RuntimeError(
                f"exit code {code}: {' | '.join((self.out / f'{name}.log').read_text().split(chr(10))[-4:])}"
            )
        return time.perf_counter() - begun

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of a run's metrics."""
        return list(read_rows(self.out / name / "metrics.jsonl"))

    def rate(self, name: str) -> float:
        """Median images per second; the first row has the start in it."""
        rows = self.rows(name)
        return statistics.median(row["images_per_second"] for row in rows[1:] or rows)

    def digest(self, name: str) -> str:
        """The first digits of the SHA-256 of a run's weights."""
        return hashlib.sha256((self.out / name / "model.safetensors").read_bytes()).hexdigest()[:16]


def tests(check: Check) -> Iterator[Line]:
    """The tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    (check.out / "tests.log").write_text(run.stdout + run.stderr)
    last = run.stdout.strip().splitlines()[-1]
    yield Line("tests marked gpu", last, "all passed, none skipped", run.returncode == 0 and "skipped" not in last)


def cudnn(check: Check) -> Iterator[Line]:
    """What deterministic kernels cost, and bfloat16 against float16; ResNet-18, 512 images of 224 px, channels_last."""
    batch, side, rounds = (4, 32, 1) if check.dry else (512, 224, 15)
    images = torch.randn(batch, 3, side, side, device=check.device).contiguous(memory_format=torch.channels_last)

    def rate(dtype: torch.dtype, deterministic: bool, benchmark: bool) -> float:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
        model = timm.create_model("resnet18", num_classes=0).to(check.device).to(memory_format=torch.channels_last)

        def step() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast(check.device, dtype):
                embeddings = model(images)
            embeddings.float().square().mean().backward()

        for _ in range(min(5, rounds)):
            step()
        synchronise(check)
        begun = time.perf_counter()
        for _ in range(rounds):
            step()
        synchronise(check)
        return rounds * batch / (time.perf_counter() - begun)

    kinds = list(itertools.product((torch.bfloat16, torch.float16), ((True, False), (False, False), (False, True))))
    rates = {kind: rate(kind[0], *kind[1]) for kind in (kinds[:3] if check.dry else kinds)}
    ours, fastest = rates[torch.bfloat16, (True, False)], max(rates.values())
    for (dtype, (deterministic, benchmark)), value in rates.items():
        what = f"{dtype}, deterministic {deterministic}, benchmark {benchmark}"
        yield Line(what, f"{value:.0f} images/s", "", None)
    yield Line("deterministic bfloat16 / the fastest", f"{ours / fastest:.2f}", "at least 0.9", ours >= 0.9 * fastest)


def synchronise(check: Check) -> None:
    if check.device == "cuda":
        torch.cuda.synchronize()


def printed(check: Check) -> Iterator[Line]:
    """The recipe as printed: batch 512, learning rate 1e-4, 200 epochs of 3,630 images."""
    peak = [0]
    watching = None if check.dry else watch_memory(check.out / "memory.txt")
    try:
        seconds = check.train(
            "printed", "--cache", "ram" if check.dry else "device", *(["--epochs", "2"] if check.dry else [])
        )
    finally:
        if watching:
            watching.terminate()
            watching.wait()
            peak = [int(line) for line in (check.out / "memory.txt").read_text().split()]
    rows = check.rows("printed")
    losses, rate = [row["loss"] for row in rows], check.rate("printed")
    yield Line("loss, first and last row", f"{losses[0]:.4f}, {losses[-1]:.4f}", "falls", losses[-1] < losses[0])
    yield Line("images/s, median of rows", f"{rate:.0f}", "at least 8,000", rate >= 8000)
    yield Line("seconds", f"{seconds:.0f}", "at most 180", seconds <= 180)
    yield Line("peak memory of the device, MiB", f"{max(peak)}", "under 20,000", max(peak) < 20_000)


def watch_memory(path: Path) -> "subprocess.Popen[bytes]":
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "500"]
    return subprocess.Popen(command, stdout=path.open("wb"))


def equal(check: Check) -> Iterator[Line]:
    """The same bytes from every cache, and after a kill."""
    runs = {"device": ("--cache", "device"), "disk": ("--cache", "disk"), "ram": ("--cache", "ram", "--workers", "0")}
    for name, flags in runs.items():
        check.train(f"equal_{name}", "--epochs", "5", *flags)
    flags = ("--epochs", "5", "--save-every", "3")
    with (check.out / "equal_killed.log").open("w") as log:
        command = [sys.executable, *check.command("equal_killed", *flags), "--overwrite"]
        job = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + 60
        while not list((check.out / "equal_killed" / "checkpoints").glob("*.json")) and time.monotonic() < until:
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
        job.wait()
    check.train("equal_killed", *flags, "--resume")
    digests = {name: check.digest(f"equal_{name}") for name in (*runs, "killed")}
    found = ", ".join(f"{name} {digest}" for name, digest in digests.items())
    yield Line("SHA-256 of the weights", found, "four equal ones", len(set(digests.values())) == 1)


def precision(check: Check) -> Iterator[Line]:
    """float16 with a scaler against bfloat16."""
    for amp in ("bf16", "bf16") if check.dry else ("bf16", "fp16"):
        check.train(f"amp_{amp}", "--amp", amp, "--epochs", "5", "--log-every", "1")
    one, other = (check.rows(f"amp_{amp}") for amp in (("bf16", "bf16") if check.dry else ("bf16", "fp16")))
    apart = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one[:3], other[:3], strict=True))
    yield Line("fp16 and bf16, loss of three steps", f"{apart:.2%} apart", "within 1 %", apart < 0.01)
    worst = max(row["loss"] for row in other)
    yield Line("fp16, highest loss", f"{worst:.3f}", "at most 1.5 times the first", worst < 1.5 * other[0]["loss"])


def compiled(check: Check) -> Iterator[Line]:
    """torch.compile of the backbone."""
    cache = ("--cache", "ram" if check.dry else "device", "--epochs", "2" if check.dry else "10")
    check.train("plain", *cache)
    check.train("compiled", *cache, *([] if check.dry else ["--compile"]))
    ratio = check.rate("compiled") / check.rate("plain")
    yield Line("--compile, rate / without", f"{ratio:.2f}", "at least 1.05", ratio >= 1.05)


def syntheses(check: Check) -> Iterator[Line]:
    """The rate with every synthesis."""
    cache = ("--cache", "ram" if check.dry else "device", "--epochs", "5")
    check.train("synthesis_nsa", *cache)
    for kind in SYNTHESES:
        check.train(f"synthesis_{kind}", "--synthesis", kind, *cache)
        ratio = check.rate(f"synthesis_{kind}") / check.rate("synthesis_nsa")
        yield Line(f"--synthesis {kind}, rate / nsa's", f"{ratio:.2f}", "at least 0.9", ratio >= 0.9)


def detectors(check: Check) -> Iterator[Line]:
    """All detectors on the device, twice, and on the CPU."""
    scores: dict[str, dict[str, float]] = {}
    backbone = "random:test_resnet" if check.dry else "random"
    methods = ["padim", "patchcore"] if check.dry else ["padim", "patchcore", "rd4ad", "simplenet", "regad"]
    for name, device in (("first", check.device), ("again", check.device), ("cpu", "cpu")):
        folder = check.out / f"detectors_{name}"
        flags = ["--backbone", backbone, "--method", *methods, "--budget", "quick", "--data", str(check.out / "toy")]
        flags += ["--classes", "hex_nut", "--device", device, "--output", str(folder), "--resize", "64", "--crop", "64"]
        command = [sys.executable, "-m", "tabzoo.benchmark", "run", *(flags if check.dry else flags[:-4])]
        subprocess.run(command, capture_output=True, check=True)
        rows = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
        scores[name] = {f"{row['method']} {row['shots'] or ''}".strip(): row["image_auroc"] for row in rows}
    for method, value in scores["first"].items():
        close = 0.01 if method in ("padim", "patchcore") else 0.05
        apart = abs(value - scores["cpu"][method])
        yield Line(
            f"{method}, image AUROC", f"{value:.4f}, {apart:.4f} from the CPU's", f"within {close}", apart <= close
        )
    same = scores["first"] == scores["again"]
    yield Line("the same rows twice", "equal" if same else f"{scores['first']}, {scores['again']}", "equal", same)


def two(check: Check) -> Iterator[Line]:
    """Two GPUs, or in a dry run two processes on the CPU."""
    if not check.dry and torch.cuda.device_count() < 2:
        yield Line("two GPUs", f"{torch.cuda.device_count()} here", "", None)
        return
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    frozen = ("--batch-norm", "frozen", "--amp", "off", "--epochs", "2" if check.dry else "40")
    check.train("two_one", *frozen)
    check.train("two_two", *frozen, start=torchrun)
    one, other = (
        safetensors.torch.load_file(check.out / name / "model.safetensors") for name in ("two_one", "two_two")
    )
    apart = max(float((one[key].float() - other[key].float()).abs().max()) for key in one)
    yield Line("frozen statistics, largest difference of a weight", f"{apart:.1e}", "within 1e-4", apart <= 1e-4)
    kind = "frozen" if check.dry else "sync"
    uneven = ("--batch-norm", kind, "--batch-size", "17", "--micro-batch", "8", "--epochs", "1")
    seconds = check.train("two_uneven", *uneven, start=torchrun, limit=120)
    yield Line("--batch-norm sync, shares of 9 and 8 in parts", f"{seconds:.0f} s", "ends", True)


STEPS: dict[str, Callable[[Check], Iterator[Line]]] = {
    step.__name__: step for step in (tests, cudnn, printed, equal, precision, compiled, syntheses, detectors, two)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_intermixed_args()
    if wrong := set(options.steps) - set(STEPS):
        parser.error(f"no step is called {', '.join(sorted(wrong))}; there are {', '.join(STEPS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "checks.jsonl"
    done: dict[str, list[Line]] = {}
    for entry in map(json.loads, kept.read_text().splitlines() if kept.exists() else []):
        done[entry["step"]] = [Line(*line) for line in entry["lines"]]
    check = Check(options.out, dry=options.dry_run)
    print(
        "dry run on the CPU" if check.dry else f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True
    )
    check.prepare()
    for name in options.steps or [name for name in STEPS if name not in done]:
        begun, lines = time.perf_counter(), []
        try:
            for line in STEPS[name](check):
                lines.append(line)
                print(shown(name, line), flush=True)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            lines.append(Line("the step", f"{type(error).__name__}: {error}", "ends", False))
            print(shown(name, lines[-1]), flush=True)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        done[name] = lines
        with kept.open("a") as file:
            file.write(json.dumps({"step": name, "lines": lines}) + "\n")
    missed = [shown(name, line) for name, lines in done.items() for line in lines if line.passed is False]
    print(f"\n{len(missed)} of {sum(len(lines) for lines in done.values())} lines miss what is expected")
    print("\n".join(missed))
    return 1 if missed else 0


def shown(step: str, line: Line) -> str:
    verdict = {True: "PASS", False: "MISS", None: "    "}[line.passed]
    return f"{verdict} {step}: {line.what}: {line.found}" + (f" (expected: {line.expected})" if line.expected else "")


if __name__ == "__main__":
    sys.exit(main())
