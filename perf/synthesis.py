"""Times of synthetic anomalies, compared with OpenCV on the same boxes and with a training step in the same run.

    python perf/synthesis.py [--batch 32] [--device cpu|cuda]

On a CPU it uses one thread. Images come from the toy factory at 224 px. On a GPU it prints pairs/s and kernel launches per
batch.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from torch import Tensor

from tabzoo.data.images import read_image
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.synthesis import SYNTHESES, CutPasteSettings, Nsa, NsaParams, NsaSettings

Array = np.ndarray[Any, Any]
SIDE = 224
NSA_SIZES = NsaSettings(gamma_lower=0.03, width_min=0.03, width_max=0.4)  # the NSA paper's, patches of 11 to 90 px


def seconds(calls: list[Callable[[], object]], device: torch.device) -> float:
    """The median over batches of the best of three calls on each, which reduces the influence of other work."""
    taken = []
    for call in calls:
        tries = []
        for _ in range(4):  # the first one warms up
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            tries.append(time.perf_counter() - start)
        taken.append(min(tries[1:]))
    return statistics.median(taken)


def by_opencv(normal: Array, source: Array, params: NsaParams) -> Array:
    """The patches by cv2.resize and cv2.seamlessClone, image by image, on [B, H, W, 3]."""
    cut, paste = params.cut[:, 0, 0].tolist(), params.paste[:, 0, 0].tolist()
    made = np.empty_like(normal)
    for i, ((top, left, height, width), (y, x, h, w)) in enumerate(zip(cut, paste, strict=True)):
        patch = cv2.resize(source[i, top : top + height, left : left + width], (w, h))
        mask = np.full((h, w), 255, np.uint8)
        mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = 0
        kind = cv2.MIXED_CLONE if params.mixed[i] else cv2.NORMAL_CLONE
        made[i] = cv2.seamlessClone(patch, normal[i], mask, (x + 1 + (w - 2) // 2, y + 1 + (h - 2) // 2), kind)
    return made


def by_opencv_in_torch(normal: Tensor, source: Tensor, params: NsaParams) -> Tensor:
    """The same with planar tensors [B, 3, H, W] in and out, as a training loop around OpenCV needs it."""
    arrays = (tensor.permute(0, 2, 3, 1).contiguous().numpy() for tensor in (normal, source))
    return torch.from_numpy(by_opencv(*arrays, params)).permute(0, 3, 1, 2).contiguous()


def photographs() -> tuple[Tensor, Tensor]:
    """Interleaved uint8 [N, 3, H, W] and classes [N]."""
    with tempfile.TemporaryDirectory() as folder:
        samples = find_samples(make_toy_factory(Path(folder) / "f", size=SIDE, train=24, test_good=1, test_defect=1))
        samples = samples.train_normals()
        pixels = torch.from_numpy(np.stack([read_image(samples.path(i)) for i in range(len(samples))]))
    return pixels.permute(0, 3, 1, 2), torch.from_numpy(samples.class_ids).long()


def sample_ids(images: int, batch: int) -> Tensor:
    """Samples of a batch in random order, as an epoch has them; where images are too few, they come in several repeats."""
    return torch.randperm(-(-batch // images) * images)[:batch]


def against_opencv(name: str, settings: NsaSettings, images: Tensor, classes: Tensor, batch: int, rounds: int) -> None:
    nsa, device = Nsa(classes, SIDE, SIDE, settings), images.device
    ours, opencv, in_torch = [], [], []
    for epoch in range(rounds):
        ids = sample_ids(len(images), batch)
        params = nsa.draw(0, epoch, ids)
        pair = (images[ids % len(images)], images[params.source])
        arrays = [np.ascontiguousarray(tensor.permute(0, 2, 3, 1).cpu().numpy()) for tensor in pair]
        planar = [tensor.cpu().contiguous(memory_format=torch.contiguous_format) for tensor in pair]
        ours.append(partial(nsa.apply, *pair, params.to(device)))
        opencv.append(partial(by_opencv, *arrays, params))
        in_torch.append(partial(by_opencv_in_torch, *planar, params))
    taken = seconds(ours, device) / batch
    alone, converted = (seconds(calls, torch.device("cpu")) / batch for calls in (opencv, in_torch))
    print(
        f"NSA, {name}: {1e6 * taken:.0f} us a pair; OpenCV {1e6 * alone:.0f}, ratio {alone / taken:.2f}; "
        f"with its conversions from and to tensors {1e6 * converted:.0f}, ratio {converted / taken:.2f}"
    )


def step_seconds(batch: int) -> float:
    """A bf16 channels_last training step of ResNet-18, seconds a pair."""
    model = timm.create_model("resnet18", num_classes=0).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        for _ in range(2):  # the normal and the abnormal images
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(images).float().square().mean()
            loss.backward()

    return seconds([step, step], torch.device("cpu")) / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    device = torch.device(options.device)
    images, classes = photographs()
    images = images.to(device)
    for name, settings in (("paper's sizes (11 to 45 px)", NsaSettings()), ("up to 90 px", NSA_SIZES)):
        once = dataclasses.replace(settings, retries=0)  # OpenCV also tries one place only
        against_opencv(name, once, images, classes, options.batch, options.rounds)
    kinds: dict[str, Any] = {
        "cutpaste": None,
        "cutpaste scar": CutPasteSettings(variant="scar"),
        "perlin": None,
        "mask": None,
        "nsa": None,
        "mix": None,
    }
    for name, settings in kinds.items():
        method: Any = SYNTHESES[name.split()[0]](classes, SIDE, SIDE, settings)
        draws, calls = [], []
        for epoch in range(options.rounds):
            ids = sample_ids(len(images), options.batch)
            params = method.draw(0, epoch, ids)
            pair = (images[ids % len(images)], images[params.source])
            draws.append(partial(method.draw, 0, epoch, ids))
            calls.append(partial(method.apply, *pair, params.to(device)))
        drawn, taken = seconds(draws, torch.device("cpu")), seconds(calls, device)
        print(
            f"{name}: {1e3 * taken / options.batch:.3f} ms an image, {options.batch / taken:.0f} pairs/s; "
            f"draws {1e3 * drawn:.1f} ms a batch"
        )
        if device.type == "cuda":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                calls[0]()
            print(f"  {sum(event.count for event in profile.key_averages())} launches a batch")
        if name == "nsa" and device.type == "cpu":
            step = step_seconds(min(options.batch, 32))
            part = taken / options.batch / step
            print(f"  a bf16 channels_last step takes {1e3 * step:.1f} ms a pair; NSA takes {part:.2%} of it")


if __name__ == "__main__":
    main()
