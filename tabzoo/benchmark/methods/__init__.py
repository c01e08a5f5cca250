"""The detectors of the benchmark, by name."""

from tabzoo.benchmark.methods.interface import (
    Budget,
    FewShotMethod,
    ImageBatches,
    Method,
    MethodSpec,
    Scores,
    TestedOnTheWay,
)
from tabzoo.benchmark.methods.padim import Padim, PadimSettings
from tabzoo.benchmark.methods.patchcore import Patchcore, PatchcoreSettings
from tabzoo.benchmark.methods.rd4ad import Rd4ad, Rd4adSettings
from tabzoo.benchmark.methods.regad import Regad, RegadSettings
from tabzoo.benchmark.methods.simplenet import Simplenet, SimplenetSettings

__all__ = ["METHODS", "Budget", "FewShotMethod", "ImageBatches", "Method", "MethodSpec", "Scores", "TestedOnTheWay"]

METHODS = {
    "padim": MethodSpec(build=Padim, settings=PadimSettings, layers=("/4", "/8", "/16"), resampling="lanczos"),
    "patchcore": MethodSpec(build=Patchcore, settings=PatchcoreSettings, layers=("/8", "/16")),
    "rd4ad": MethodSpec(
        build=Rd4ad,
        settings=Rd4adSettings,
        layers=("/4", "/8", "/16"),
        resize=256,
        crop=256,
        multiple=32,  # The student halves maps once more than the teacher, and doubles them back.
        quick={"steps": 60},
    ),
    "simplenet": MethodSpec(
        build=Simplenet,
        settings=SimplenetSettings,
        layers=("/8", "/16"),
        resize=329,
        crop=288,
        quick={"steps": 160, "batch_size": 2},
        oracle=True,
    ),
    "regad": MethodSpec(
        build=Regad,
        settings=RegadSettings,
        layers=("/4", "/8", "/16"),
        resize=224,
        resampling="lanczos",
        crop=224,
        smallest=33,  # Spatial transformers want maps of 3 x 3 at a sixteenth of it.
        quick={"steps": 8, "batch_size": 8, "draws": 3},
        normalised=False,
        shots=(4, 8),
        few_shot=True,
    ),
}
