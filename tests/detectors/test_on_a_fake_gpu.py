"""Fitting and scoring on a fake GPU: the host waits for it only where it must, and nothing is added in a random order."""

import copy
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import BUILT, CUDA, UNORDERED, Record, fake_cuda, in_a_child
from fake_step import FakeImages
from torch import Tensor

from tabzoo.detectors import (
    DETECTORS,
    Detector,
    FewShotDetector,
    padim,
    patchcore,
    rd4ad,
    regad,
    regad_network,
    simplenet,
)
from tabzoo.detectors.batches import FrozenFeatures, NormalisedBatches
from tabzoo.detectors.extractor import build_extractor

pytestmark = pytest.mark.skipif(not BUILT, reason="torch is built without CUDA, whose tensors could be fake")

SIDE = 64
SETTINGS: dict[str, dict[str, Any]] = {
    "padim": {},
    "patchcore": {"share": 0.2},
    "rd4ad": {"batch_size": 2},
    "simplenet": {"batch_size": 2, "hidden": 16},
    "regad": {"batch_size": 3},
}
ONCE = {
    "padim": {"linalg.cholesky"},
    "patchcore": {"torch.cat(valid"},
    "rd4ad": {"student.to("},
    "simplenet": {"adaptor.to("},
    "regad": {"network.to(", "linalg.cholesky"},
}
"""The lines in which fitting may wait: a new network is copied to the device, covariances are checked, a number is read."""


def batches(count: int) -> NormalisedBatches:
    pixels, rows = FakeImages(SIDE).batch, torch.arange(count)
    return NormalisedBatches(pixels, rows, batch_size=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))


def build(name: str, patch: pytest.MonkeyPatch, **changes: object) -> Detector:
    """A detector on a small backbone on the fake GPU."""
    spec = DETECTORS[name]
    extractor = build_extractor("random:resnet10t", layers=spec.layers, seed=0)
    body = copy.deepcopy(extractor.body)  # torch can't move a copy of fake weights: RegAD copies these
    patch.setattr(regad_network, "copy", SimpleNamespace(deepcopy=lambda _: copy.deepcopy(body)))
    return spec.build(extractor.to(CUDA), 0, spec.settings(**{**SETTINGS[name], **changes}))


def fit(detector: Detector) -> None:
    if isinstance(detector, FewShotDetector):
        detector.meta_train([batches(5), batches(4)], 2)
    detector.fit(batches(4))


def score(detector: Detector) -> None:
    """As the benchmark does."""
    images, rows = batches(5), torch.arange(5)
    if isinstance(detector, FewShotDetector):
        detector.score_maps(FrozenFeatures(images, detector.embed).take(rows), (SIDE, SIDE))
    else:
        detector.score(images.take(rows))


def waits_of(call: Callable[[], object], record: Record) -> Counter[str]:
    """What the second call waits for; the first one makes tables and buffers."""
    call()
    record.reset()
    call()
    assert not UNORDERED & record.launches.keys()
    return record.waits.copy()


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_waits_but_what_is_named(name: str) -> None:
    def check() -> None:
        with fake_cuda() as record, pytest.MonkeyPatch.context() as patch:
            detector = build(name, patch, **({"steps": 6} if hasattr(DETECTORS[name].settings, "steps") else {}))
            found = waits_of(lambda: fit(detector), record)
            assert {line for line in ONCE[name] if any(line in wait for wait in found)} == ONCE[name]
            assert not [wait for wait in found if not any(line in wait for line in ONCE[name])]
            assert not waits_of(lambda: score(detector), record)

    in_a_child(check)


@pytest.mark.parametrize("name", ["rd4ad", "simplenet", "regad"])
def test_more_steps_do_not_wait_more(name: str) -> None:
    def check() -> None:
        with fake_cuda() as record, pytest.MonkeyPatch.context() as patch:
            found = []
            for steps in (1, 4):
                detector = build(name, patch, steps=steps)
                found.append(waits_of(lambda: fit(detector), record))  # noqa: B023
            assert found[0] == found[1]

    in_a_child(check)


def test_patchcore_reads_at_most_two_numbers_for_each_of_its_rounds() -> None:
    """The fake GPU says that only the first choice of a round is valid, and is asked after 16 choices and at the end."""

    def check() -> None:
        with fake_cuda() as record, pytest.MonkeyPatch.context() as patch:
            detector = build("patchcore", patch)
            waits = waits_of(lambda: fit(detector), record).total()
            rounds = int(0.2 * 4 * (SIDE // 8) ** 2) - 1
            assert rounds < waits < 2 * rounds

    in_a_child(check)


STEPS = {
    "padim": (padim.PyramidGaussians, "update", padim, "smooth_upsample"),
    "patchcore": (patchcore.Patchcore, "embed", patchcore, "smooth_upsample"),
    "rd4ad": (rd4ad, "distillation_loss", rd4ad, "smooth_upsample"),
    "simplenet": (simplenet, "margin_loss", simplenet, "smooth_upsample"),
    "regad": (regad, "registration_loss", regad, "smooth_upsample"),
}
"""A function of each step of fitting, and one of scoring."""
FAULTS: dict[str, Callable[[Tensor], object]] = {
    "a value is read": lambda x: x.sum().item(),
    "index with a tensor on the CPU": lambda x: x[torch.zeros(2, dtype=torch.int64)],
    "a copy from cpu": lambda x: torch.tensor([1.0, 2.0], device=x.device),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_fault_is_noticed(name: str) -> None:
    fitted, fit_step, scored, score_step = STEPS[name]

    def check() -> None:
        with fake_cuda() as record, pytest.MonkeyPatch.context() as patch:
            detector = build(name, patch, **({"steps": 2} if hasattr(DETECTORS[name].settings, "steps") else {}))
            for owner, step, call in ((fitted, fit_step, fit), (scored, score_step, score)):
                usual = waits_of(lambda: call(detector), record)  # noqa: B023
                original = getattr(owner, step)
                for expected, fault in FAULTS.items():

                    def faulty(*args: Any, of: Any = original, fault: Any = fault, **more: Any) -> Any:
                        fault(torch.ones(3, device=CUDA))
                        return of(*args, **more)

                    with patch.context() as once:
                        once.setattr(owner, step, faulty)
                        record.reset()
                        call(detector)
                        new = {wait.partition(":")[0] for wait in record.waits - usual}
                        assert new == {expected}, (step, expected)

    in_a_child(check)
