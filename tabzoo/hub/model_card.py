"""MODEL_CARD.md, the card of tabzoo's own weights: `python -m tabzoo.hub.model_card > MODEL_CARD.md`."""

from tabzoo.hub.card_text import LIMITS_OF_TAB, Sections, in_order
from tabzoo.hub.license_terms import explain_license
from tabzoo.hub.table import WEIGHTS

__all__ = ["model_card"]

_DETAILS = """ResNet-18 (11.2 M parameters, 512-wide embedding, no classifier), pre-trained by TAB (arXiv 2312.09480):
contrastive alignment of normal images and of synthetic anomalies (NSA) with frozen text features of CLIP ViT-B/16 (LAION-400M).
Started from torchvision's ImageNet weights V1. Input 224 x 224 after squashing to 256 x 256, ImageNet mean and std.

The authors' checkpoints, converted, are different weights under the same names: `tabzoo.json` then says `converted_from`, with
the SHA-256 of their file, instead of a recipe."""

_TRAINING = """By the recipes of the same names: the paper's supplement, and the authors' code where that is silent. Each line
of a recipe names its source. The supplement and the code give different settings; whether either reproduces the released
weights is open. If they come from that code as it is published, they were not aligned with text: it mixes up the text features
of the classes."""

_LIMITS = """- From ImageNet's weights, on a CPU and with stand-ins for CLIP's texts, no way of training that was tried beat
  ImageNet's weights ([numbers](training/results/2026-11-28_imagenet_start/README.md)), and the pooled features of two such
  trainings separated defects from normal images worse than before
  ([numbers](training/results/2026-11-28_feature_space/README.md))."""

_COST = """Not known yet: it will be filled from the runs that make the published weights, with hardware and hours. The card
of every run states the time and the hardware of its training."""

_REPRODUCE = """
```bash
tabzoo pretrain --recipe resnet18.tab_mvtec --data DIR --output runs/tab_mvtec
tabzoo benchmark run --backbone resnet18.tv_in1k runs/tab_mvtec --method padim --seeds 0 1 2 --data DIR --output runs/compared
```

DIR is MVTec AD. The paper's tables and figures: [training/README.md](training/README.md). The Industrial dataset has to be put
together: [training/industrial/README.md](training/industrial/README.md)."""


def model_card() -> str:
    """The text of MODEL_CARD.md."""
    names = ", ".join(weights.name for weights in WEIGHTS)
    planned = [weights.name for weights in WEIGHTS if not weights.published]
    state = (
        f"Not published yet: {', '.join(planned)}. This card describes what is planned of them.\n" if planned else ""
    )
    sections = Sections(
        details=_DETAILS,
        data=_data(),
        training=_TRAINING,
        evaluation=_evaluation(),
        limits=f"{LIMITS_OF_TAB}\n{_LIMITS}",
        cost=_COST,
        reproduce=_REPRODUCE,
    )
    return f"""# Model card: {names}

{state}
Every weights folder that a run or `tabzoo convert` makes has a card of its own, with the same headings. `tabzoo publish` makes
the Hub's page of it: licence, tags and training data as metadata, and the benchmark's numbers as its table of results. Nothing
in that table is typed by hand. This file is made by `python -m tabzoo.hub.model_card`.

{in_order(sections)}"""


def _data() -> str:
    lines = [
        f"| `{one.name}` | {one.training_data} | {'; '.join(one.data_licenses)} | "
        f"{one.license}: {explain_license(one.license)} |"
        for one in WEIGHTS
    ]
    return "\n".join(
        ["| name | trained on | licences of the images | licence of the weights |", "|---|---|---|---|", *lines]
    )


def _evaluation() -> str:
    lines = [
        f"| `{one.name}` | {metric.what} | {metric.value:.2f} | {metric.source} |"
        for one in WEIGHTS
        for metric in one.metrics
    ]
    table = "\n".join(["| name | what | % | source |", "|---|---|---|---|", *lines])
    return f"""Numbers of the paper, which states no intervals:

{table}

With tabzoo nothing was measured on weights of these names yet. What `tabzoo publish --results` adds has 95 % intervals, from a
bootstrap over the test images."""


if __name__ == "__main__":
    print(model_card(), end="")
