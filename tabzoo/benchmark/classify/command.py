"""`python -m tabzoo.benchmark classify`."""

from dataclasses import dataclass
from typing import ClassVar

from tabzoo.benchmark.classify.options import Options
from tabzoo.benchmark.classify.rows import RESULTS
from tabzoo.benchmark.classify.run import classify
from tabzoo.benchmark.classify.split import SPLITS
from tabzoo.command import say, show, typed

__all__ = ["Classify"]


@dataclass(frozen=True, kw_only=True)
class Classify(Options):
    """Classify defects: backbones fine-tuned or probed with few and with all labels (the paper's section 3.2)."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo benchmark classify --data wafers.npz --backbone random resnet18.tv_in1k --mode linear --output runs/wafers",
        "tabzoo benchmark classify --data photos/screw --backbone runs/mine --mode knn --labels 10 100 --output runs/kinds",
    )

    def run(self) -> int:
        """Measures, prints the tables and says what was made."""
        try:
            print(classify(self, command=typed("python -m tabzoo.benchmark classify", self)))
        except KeyboardInterrupt:
            say(f"Stopped. Finished rows are in {self.output}; the same command continues.")
            return 130
        names = [RESULTS, "table.md", "table.csv", f"{SPLITS}/", "confusion/", f"label_efficiency-{self.mode}.png"]
        names += [f"embedding-{self.mode}.png", f"caption-{self.mode}.txt"]
        made = [name for name in names if (self.output / name).exists()]
        show(f"Made in {self.output}: {', '.join(made)}")
        return 0
