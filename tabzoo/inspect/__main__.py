"""`python -m tabzoo.inspect fit ...`: from photos to verdicts."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar, cast

from tyro.conf import OmitArgPrefixes

from tabzoo.command import Command, run_command, run_commands, say, show
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.interface import flag_of
from tabzoo.detectors.settings_flags import flags_of_settings
from tabzoo.hub.license_terms import is_noncommercial
from tabzoo.inspect.export.command import Export
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.folder import read_photos
from tabzoo.inspect.options import FitOptions
from tabzoo.inspect.record import METHODS, DetectorRecord
from tabzoo.inspect.score import Score
from tabzoo.inspect.threshold import more_photos

__all__ = ["COMMANDS", "main"]


@dataclass(frozen=True, kw_only=True)
class _Fit(FitOptions):
    """Fit a detector to good photos, with a threshold, and keep it in a folder."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo fit --data photos --class screw --backbone resnet18.tv_in1k --output detectors/screw",
        "tabzoo fit --data photos/screw --backbone runs/mine --method patchcore --tile 256 --output detectors/screw",
    )

    def run(self) -> int:
        logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of unused layers; what matters is checked here
        given = {
            name: {key: value for key, value in vars(getattr(self, name)).items() if value is not None}
            for name in METHODS
        }
        for name in METHODS:
            for key in given[name] if name != self.method else ():
                say(f"{flag_of(name, key)}: no effect with --method {self.method}")
        options = FitOptions(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(FitOptions)})
        _report(fit_detector(options, settings=given[self.method]).record, options)
        return 0


def _report(record: DetectorRecord, options: FitOptions) -> None:
    size = sum(digest.size for digest in record.files.values()) / 1e6
    photos = f"{record.provenance['photos']:,} good photos"
    show(f"{record.method} of {record.class_name}, fitted to {photos}: {options.output}, {size:.1f} MB.")
    show(f"Threshold {record.threshold.value:.6g}. {record.threshold.words}")
    if record.threshold.quantile == 1:
        _name_highest(options, record)
    if tested := record.tested:
        show(tested.words)
    if is_noncommercial(licence := record.backbone["license"]):
        say(f"The licence of the backbone's weights, {licence}, forbids commercial use, also of this detector.")
    show(f"Next: tabzoo score {shlex.quote(str(options.output))} PHOTO|DIR")


def _name_highest(options: FitOptions, record: DetectorRecord) -> None:
    """Names the photo whose score is the threshold: one unusual photo among the good ones would hide defects of others."""
    path = max(read_photos(options.output), key=lambda photo: photo.score).path
    show(
        f"The threshold is the score of one photo, {path}; the next highest is {record.good_scores[-2]:.6g}. Look at it: if it "
        f"shows a defect or was taken differently, move it out of the folder and fit again."
    )
    show(f"If it is good, {more_photos(record.threshold)}.")


def _with_settings() -> Any:
    """`_Fit` with a group of flags for each method."""
    groups, flat = [], cast(Any, OmitArgPrefixes)
    for name in METHODS:
        kind = flags_of_settings(name, DETECTORS[name])
        groups.append((name, flat[kind], field(default_factory=kind)))
    made = make_dataclass("Fit", groups, bases=(_Fit,), frozen=True, kw_only=True)
    made.__doc__ = _Fit.__doc__
    return made


COMMANDS: dict[str, type[Command]] = {
    "fit": _with_settings(),
    "score": Score,
    "export": Export,
}


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.inspect") -> int:
    """Runs the command line; returns the command's exit code, or 2 for a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return run_command(COMMANDS[arguments[0]], arguments[1:], prog=f"{prog} {arguments[0]}")
    return run_commands(COMMANDS, arguments, prog=prog, description="From photos to verdicts.")


if __name__ == "__main__":
    sys.exit(main())
