"""What every model card says, whatever its weights: the order of its headings, uses, and limits of the method."""

from typing import NamedTuple

__all__ = ["LIMITS", "LIMITS_OF_RANKING", "LIMITS_OF_TAB", "RESULTS_BEFORE", "Sections", "in_order"]

RESULTS_BEFORE = "\n## Limits\n"
"""The heading before which measured results belong."""

_USES = """Meant as the backbone of anomaly detectors that model features of normal images (PaDiM, PatchCore, RD4AD, SimpleNet,
RegAD), and as a start for fine-tuning on inspection images. It is a feature extractor, not a detector: `tabzoo fit` makes a
detector of it."""

_OUT_OF_SCOPE = """Pictures of people, medical use, and any use as the only safeguard of a safety-critical part."""

LIMITS = """- A detector that is tested on classes of the pre-training has seen their normal images there (transductive): say so
  next to its numbers.
- Synthetic anomalies stand in for defects. With the authors' settings of NSA they are 11 to 45 px wide at 224 px; larger or
  global faults are not simulated."""
"""What holds for all weights that tabzoo trains."""

LIMITS_OF_TAB = """- The objective `tab` separates product classes from each other; normal and abnormal images of a class are
  never contrasted (the objective `joint` does that)."""

LIMITS_OF_RANKING = """- The objective `ranking` is not the paper's. It adapts weights to the classes that they are trained
  on; on other classes no gain was found. Layers after the one with stride 16 keep the initial weights, so the embedding is
  of no use."""


class Sections(NamedTuple):
    """The parts of a card that depend on the weights, each Markdown.

    Attributes:
        details: Architecture, method, input.
        data: Training images, and the licences of images and weights.
        training: How it was trained.
        evaluation: What was measured, and on what.
        limits: More lines of the list of limits; may be empty.
        cost: Time and hardware.
        reproduce: What to type.
    """

    details: str
    data: str
    training: str
    evaluation: str
    limits: str
    cost: str
    reproduce: str


def in_order(sections: Sections) -> str:
    """All sections below their headings."""
    parts = {
        "Details": sections.details,
        "Uses": _USES,
        "Out of scope": _OUT_OF_SCOPE,
        "Data and licences": sections.data,
        "Training": sections.training,
        "Evaluation": sections.evaluation,
        "Limits": "\n".join(filter(None, [LIMITS, sections.limits.strip("\n")])),
        "Environmental cost": sections.cost,
        "How to reproduce": sections.reproduce,
    }
    return "\n\n".join(f"## {heading}\n\n{text.strip()}" for heading, text in parts.items()) + "\n"
