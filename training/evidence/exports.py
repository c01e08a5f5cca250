"""The report's numbers as a table for programs, and as a figure."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from results import SCOPES, Estimate, Measured, Scope, corrected

from tabzoo.figures import save_figure

__all__ = ["NOT_RUN", "draw_differences", "to_csv"]

NOT_RUN = "not run"

_COLUMNS = (
    *("method", "classes", "arm", "level", "name", "training_runs", "metric", "value", "start", "difference"),
    *("low_images", "high_images", "low_classes", "high_classes", "p", "p_holm"),
)


def to_csv(measured: Mapping[tuple[str, Scope], Sequence[Measured]]) -> str:
    """A line for each metric of an arm over all classes, for each family, and for each class; fractions, not percent."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for (method, scope), of_key in measured.items():
        p_values = corrected(of_key)
        for one in of_key:
            about = {"method": method, "classes": scope, "arm": one.arm, "training_runs": len(one.runs)}
            if one.images is None:
                writer.writerow({**about, "level": "all", "value": NOT_RUN})
                continue
            spread: dict[str, object] = {"low_images": one.images.low, "high_images": one.images.high}
            if one.classes:
                spread |= {"low_classes": one.classes.low, "high_classes": one.classes.high}
            spread |= {"p": one.images.p_value, "p_holm": p_values[one.arm]}
            for metric, estimate in one.metrics.items():
                more = spread if metric == "image_auroc" else {}
                writer.writerow({**about, "level": "all", **_numbers(metric, estimate), **_rounded(more)})
            for family, found in one.families.items():
                numbers = {"difference": found.difference, "low_images": found.low, "high_images": found.high}
                row = {**about, "level": "family", "name": family, "metric": "image_auroc"}
                writer.writerow({**row, **_rounded({**numbers, "p": found.p_value})})
            for name, metrics in one.by_class.items():
                for metric, estimate in metrics.items():
                    if estimate.value is not None:
                        writer.writerow({**about, "level": "class", "name": name, **_numbers(metric, estimate)})
    return text.getvalue()


def _numbers(metric: str, estimate: Estimate) -> dict[str, object]:
    values = {"value": estimate.value, "start": estimate.start, "difference": estimate.difference}
    return {"metric": metric, **_rounded({name: "" if value is None else value for name, value in values.items()})}


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    return {name: f"{value:.5f}" if isinstance(value, float) else value for name, value in values.items()}


def draw_differences(path: Path, measured: Mapping[tuple[str, Scope], Sequence[Measured]]) -> None:
    """Draws a panel for each scope, with a line for each arm and a colour for each method.

    Raises:
        WriteError: The file can't be written.
    """
    methods = list(dict.fromkeys(method for method, _ in measured))
    arms = [one.arm for one in measured[methods[0], "trained"]]
    there = {one.arm for of_key in measured.values() for one in of_key if one.images}
    labels = [arm if arm in there else f"{arm} ({NOT_RUN})" for arm in arms]
    figure = Figure(figsize=(10, 1.2 + 0.35 * len(arms)))
    for index, scope in enumerate(SCOPES):
        axes = figure.add_subplot(1, 2, index + 1)
        for offset, method in enumerate(methods):
            found = [(line, one.images) for line, one in enumerate(measured[method, scope]) if one.images]
            lines = [line + 0.15 * offset for line, _ in found]
            centres = [100 * images.difference for _, images in found]
            lower = [100 * (images.difference - images.low) for _, images in found]
            upper = [100 * (images.high - images.difference) for _, images in found]
            axes.errorbar(centres, lines, xerr=[lower, upper], fmt="o", markersize=4, capsize=2, label=method)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_yticks(range(len(arms)), labels if index == 0 else [""] * len(arms))
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_title(f"{scope} classes", fontsize=10)
        axes.set_xlabel("image AUROC, difference to the start in points")
    if len(methods) > 1:
        axes.legend(fontsize=8)
    save_figure(figure, path, dpi=120, tight=True)
