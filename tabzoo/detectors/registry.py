"""The detectors by name, each with its authors' settings."""

from tabzoo.detectors.interface import DetectorSpec
from tabzoo.detectors.padim import Padim, PadimSettings
from tabzoo.detectors.patchcore import Patchcore, PatchcoreSettings
from tabzoo.detectors.rd4ad import Rd4ad, Rd4adSettings
from tabzoo.detectors.regad import Regad, RegadSettings
from tabzoo.detectors.simplenet import Simplenet, SimplenetSettings

__all__ = ["DETECTORS"]

DETECTORS = {
    "padim": DetectorSpec(build=Padim, settings=PadimSettings, layers=("/4", "/8", "/16"), resampling="lanczos"),
    "patchcore": DetectorSpec(build=Patchcore, settings=PatchcoreSettings, layers=("/8", "/16")),
    "rd4ad": DetectorSpec(
        build=Rd4ad,
        settings=Rd4adSettings,
        layers=("/4", "/8", "/16"),
        resize=256,
        crop=256,
        multiple=32,  # The student halves maps once more than the teacher, and doubles them back.
        quick={"steps": 60},
    ),
    "simplenet": DetectorSpec(
        build=Simplenet,
        settings=SimplenetSettings,
        layers=("/8", "/16"),
        resize=329,
        crop=288,
        quick={"steps": 160, "batch_size": 2},
        oracle=True,
    ),
    "regad": DetectorSpec(
        build=Regad,
        settings=RegadSettings,
        layers=("/4", "/8", "/16"),
        resize=224,
        resampling="lanczos",
        crop=224,
        smallest=33,  # Its spatial transformers need maps of at least 3 x 3, which are a sixteenth of the crop.
        quick={"steps": 8, "batch_size": 8, "draws": 3},
        normalised=False,
        shots=(4, 8),
        few_shot=True,
    ),
}
