"""A step of the objective `ranking` against one of Algorithm 1, on equal images, with equal precision and backbone.

    python perf/ranking_step.py [--backbone tf_efficientnet_lite0] [--batch 10] [--device cpu|cuda] [--amp bf16|off]

The ratio of one run; steps are taken in turn. Images are there already: synthesis is the same for both.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from train_step import resident, seconds

from tabzoo.backbones import build_backbone, embedding_width
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.heads import ProjectionHeads
from tabzoo.training.loop import optimise
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run
from tabzoo.training.state import new_state
from tabzoo.training.text import TextFeatures


def step_of(recipe: Recipe, device: torch.device, folder: Path) -> Callable[[], object]:
    samples = find_samples(str(folder / "factory")).train_normals()
    images = open_images(samples, size=recipe.resize, mode="ram", workers=0)
    classes = torch.from_numpy(samples.class_ids).long()
    backbone = build_backbone(recipe.backbone, init="random", seed=0)
    width = embedding_width(backbone, recipe.crop)
    texts = torch.nn.functional.normalize(torch.randn(2, len(samples.classes), width), dim=-1)
    text = TextFeatures(
        normal=texts[0],
        abnormal=texts[1],
        words=dict.fromkeys(samples.classes, "-"),
        text_model="-",
        text_pretrained="-",
        prompts_sha256="-",
    )
    run = Run(
        recipe=recipe,
        folder=folder,
        device=device,
        samples=samples,
        hashes=images.hashes,
        text=text,
        pairs=pair_maker(images, torch.arange(len(classes)), classes, recipe, device),
    )
    state = new_state(run, backbone, ProjectionHeads("none", width, width))
    pairs = resident(recipe.batch_size, len(samples.classes), recipe, device)
    return lambda: optimise(run, state, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        make_toy_factory(Path(name) / "factory", size=64, train=options.batch, test_good=1, test_defect=1)
        common = Recipe(
            backbone=options.backbone,
            init="random",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            batch_norm="frozen",
            batch_size=options.batch,
            amp=options.amp,
            channels_last=True,
        )
        calls = {
            name_of: step_of(common.replace(objective=name_of), device, Path(name)) for name_of in ("tab", "ranking")
        }
        taken = seconds(calls, device, options.rounds, 1 if device.type == "cpu" else 20)
    print(
        f"{options.backbone}, {options.batch} pairs, {options.amp}, {device}: tab {1000 * taken['tab']:.0f} ms, "
        f"ranking {1000 * taken['ranking']:.0f} ms, ratio {taken['ranking'] / taken['tab']:.2f}"
    )


if __name__ == "__main__":
    main()
