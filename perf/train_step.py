"""The training step: the real loop against a batch that is already there, and against a plain loop as the authors'.

    python perf/train_step.py [--device cpu|cuda] [--batch 32] [--threads 1] [--amp auto|bf16|off] [--end-to-end]

Ratios of one run, steps taken in turn, so that the machine's other work hits all alike. On a GPU it adds peak memory and
the share of time in which a kernel runs; `--end-to-end` trains 200 epochs on 3,629 generated images, as MVTec AD has.

The plain loop is the authors' way (Howeng98/TAB @ aa8c4dc): for each pair two PIL loads, Lanczos to 256, centre crop, one
patch by OpenCV, normalised tensors, and a step in float32 NCHW. Its intensity labels, 14 ms a pair that TAB's loss never
reads, are left out in its favour.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from data import MEAN, STD, plain_decode
from synthesis import by_opencv
from torch import Tensor

from tabzoo.backbones import build_backbone
from tabzoo.compute import choose_amp
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import Samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.signals import StopRequest
from tabzoo.synthesis import Nsa
from tabzoo.synthesis.pairs import Pairs
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.heads import ProjectionHeads
from tabzoo.training.loop import optimise, train
from tabzoo.training.metrics import read_rows
from tabzoo.training.output import METRICS
from tabzoo.training.recipe import Recipe, load_recipe
from tabzoo.training.run import Run
from tabzoo.training.state import State, new_state
from tabzoo.training.text import TextFeatures


def build(samples: Samples, recipe: Recipe, device: torch.device, folder: Path) -> tuple[Run, State]:
    classes = torch.from_numpy(samples.class_ids).long()
    images = open_images(samples, size=recipe.resize, mode=recipe.cache, cache_dir=folder / "cache", device=device)
    texts = F.normalize(torch.randn(2, len(samples.classes), 512), dim=-1)
    words = {name: name for name in samples.classes}
    text = TextFeatures(
        normal=texts[0], abnormal=texts[1], words=words, text_model="-", text_pretrained="-", prompts_sha256="-"
    )
    pairs = pair_maker(images, torch.arange(len(classes)), classes, recipe, device)
    backbone = build_backbone(recipe.backbone, init="random", seed=0)
    run = Run(
        recipe=recipe, folder=folder, device=device, samples=samples, hashes=images.hashes, text=text, pairs=pairs
    )
    return run, new_state(run, backbone, ProjectionHeads("none", 512, 512))


def resident(batch: int, classes: int, recipe: Recipe, device: torch.device) -> Pairs:
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    normal, abnormal = (
        torch.randn(batch, 3, recipe.crop, recipe.crop, device=device).contiguous(memory_format=layout)
        for _ in range(2)
    )
    mask = torch.ones(batch, 1, recipe.crop, recipe.crop, dtype=torch.bool, device=device)
    return Pairs(normal, abnormal, mask, torch.randint(classes, (batch,), device=device))


def seconds(calls: dict[str, Callable[[], object]], device: torch.device, rounds: int, each: int) -> dict[str, float]:
    """Median seconds of a call of each kind, `each` calls of one kind after another, the kinds in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(each):
                call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                taken[name].append((time.perf_counter() - start) / each)
    return {name: statistics.median(values) for name, values in taken.items()}


def real_step(run: Run, state: State) -> Callable[[], None]:
    """A step of the real loop; after the last one it begins again."""

    def stream() -> Iterator[Pairs]:
        return run.pairs.stream(run.recipe.seed, run.batches(0))

    batches = stream()

    def step() -> None:
        nonlocal batches
        if state.step == run.total_steps:
            state.step, batches = 0, stream()
        optimise(run, state, next(batches))
        state.scheduler.step()
        state.step += 1

    return step


def plain_step(samples: Samples, run: Run, state: State, batch: int) -> Callable[[], None]:
    classes = torch.from_numpy(samples.class_ids).long()
    nsa, drawn = Nsa(classes, 224, 224), iter(range(1 << 30))

    def step() -> None:
        ids = torch.randint(len(classes), (batch,))
        params = nsa.draw(0, next(drawn), ids)
        normal, source = (
            np.stack([np.asarray(plain_decode(samples.path(int(i))).crop((16, 16, 240, 240))) for i in indices])
            for indices in (ids, params.source)
        )
        made = by_opencv(normal, source, params)
        tensors = [floats(pixels) for pixels in (normal, made)]
        optimise(run, state, Pairs(*tensors, torch.ones(batch, 1, 224, 224), classes[ids])).tolist()

    def floats(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Tensor:
        planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div(255)
        return (planes - MEAN) / STD

    return step


def on_gpu(run: Run, step: Callable[[], None], batch: int) -> None:
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    print(f"peak memory, batch {batch}: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB (goal: under 20)")
    with torch.profiler.profile() as profile:
        start = time.perf_counter()
        for _ in range(10):
            step()
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
    events = profile.events() or []
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, until = 0.0, 0.0
    for begin, end in spans:  # kernels of two streams may overlap
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    print(f"a kernel runs in {busy / 1e6 / wall:.0%} of the time (under the profiler)")
    print(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=12, max_name_column_width=60))


def end_to_end(folder: Path, device: torch.device, batch: int, recipe: Recipe) -> None:
    root = make_toy_factory(folder / "mvtec", size=256, train=605, test_good=1, test_defect=1)  # 6 classes: 3,630
    samples = find_samples(root).train_normals().select(np.arange(3629))
    run, state = build(samples, recipe.replace(cache="device", epochs=200, batch_size=batch), device, folder)
    start = time.perf_counter()
    train(run, state, StopRequest())
    wall = time.perf_counter() - start
    rows = read_rows(folder / METRICS)
    print(f"first row: {rows[0]}\nlast row: {rows[-1]}")
    print(f"200 epochs of 3,629 images: {wall:.0f} s, {2 * batch * run.total_steps / wall:.0f} images/s (aim: 100 s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="32 on a CPU, 512 on a GPU if not given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--amp", choices=("auto", "bf16", "off"), default="auto", help="of the real loop")
    parser.add_argument("--end-to-end", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    batch = options.batch or (32 if device.type == "cpu" else 512)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    if device.type == "cpu":
        print(
            f"CPU: torch's kernels for {torch.backends.cpu.get_cpu_capability()}; {choose_amp('auto', device).reason}"
        )
    amp = choose_amp(options.amp, device).amp
    recipe = load_recipe("resnet18.tab_mvtec").replace(batch_size=batch, cache="ram", log_every=50, amp=amp)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make_toy_factory(
            folder / "toy", size=1024, train=batch // 2, test_good=1, test_defect=1, classes=("hex_nut", "wood_grain")
        )
        samples = find_samples(made).train_normals()
        run, state = build(samples, recipe, device, folder)
        there = resident(batch, 2, recipe, device)
        real = real_step(run, state)
        calls: dict[str, Callable[[], object]] = {"real": real, "resident": lambda: optimise(run, state, there)}
        if device.type == "cpu":
            plain, plain_state = build(samples, recipe.replace(amp="off", channels_last=False), device, folder)
            planar = resident(batch, 2, plain.recipe, device)
            calls["fp32"] = lambda: optimise(plain, plain_state, planar)
            calls["plain"] = plain_step(samples, plain, plain_state, batch)
        taken = seconds(calls, device, options.rounds, 1 if device.type == "cpu" else 10)
        print(f"batch {batch} on {device}, {torch.get_num_threads()} threads; ms a pair (normal and abnormal):")
        print("  " + ", ".join(f"{name} {1e3 * value / batch:.2f}" for name, value in taken.items()))
        print(f"step rate of the real loop / on a resident batch: {taken['resident'] / taken['real']:.3f}")
        if device.type == "cpu":
            goal = " (goal: 2)" if amp == "bf16" else ""
            print(f"amp {amp}, channels_last / fp32 NCHW, resident: {taken['fp32'] / taken['resident']:.2f}{goal}")
            print(f"whole pipeline / the authors' way: {taken['plain'] / taken['real']:.2f} (goal: 3)")
        else:
            on_gpu(run, real, batch)
        if options.end_to_end:
            end_to_end(folder, device, batch, recipe)


if __name__ == "__main__":
    main()
