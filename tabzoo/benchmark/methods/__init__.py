"""The detectors of the benchmark, by name."""

from tabzoo.benchmark.methods.interface import ImageBatches, Method, MethodSpec, Scores
from tabzoo.benchmark.methods.padim import Padim
from tabzoo.benchmark.methods.patchcore import Patchcore

__all__ = ["METHODS", "ImageBatches", "Method", "MethodSpec", "Scores"]

METHODS = {
    "padim": MethodSpec(build=Padim, layers=("/4", "/8", "/16")),
    "patchcore": MethodSpec(build=Patchcore, layers=("/8", "/16")),
}
