"""RD4AD against anomalib's ReverseDistillation with the same weights, where that is installed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tabzoo.detectors import DETECTORS
from tabzoo.detectors.extractor import build_extractor
from tabzoo.detectors.rd4ad import Rd4ad, Student, distillation_loss

SIDE = 128
NAMES = {
    **{
        "bottleneck.conv1": "fine.0",
        "bottleneck.bn1": "fine.1",
        "bottleneck.conv2": "fine.3",
        "bottleneck.bn2": "fine.4",
    },
    **{"bottleneck.conv3": "middle.0", "bottleneck.bn3": "middle.1", "bottleneck.bn_layer": "embed"},
    **{f"decoder.layer{i + 1}": f"decode.{i}" for i in range(3)},
}
"""Parts of anomalib's model to those of our student; its `conv4` and `bn4` are never used."""


def copy_weights(theirs: Any, ours: Student) -> None:
    state = {}
    for key, value in theirs.state_dict().items():
        for part, name in NAMES.items():
            if key.startswith(f"{part}."):
                state[name + key.removeprefix(part).replace("upsample", "downsample")] = value
    ours.load_state_dict(state)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_anomalib_gives_the_same(backbone: str) -> None:
    package = "anomalib.models.image.reverse_distillation"
    torch_model, loss = (pytest.importorskip(f"{package}.{name}") for name in ("torch_model", "loss"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torch_model.ReverseDistillationModel(
            backbone, (SIDE, SIDE), ["layer1", "layer2", "layer3"], "add", pre_trained=False
        )
        images = torch.randn(4, 3, SIDE, SIDE)
    theirs.train()
    with torch.no_grad():
        for _ in range(20):  # batch-norm statistics of its own
            taught, decoded = theirs(images)
    rd4ad = Rd4ad(build_extractor(f"random:{backbone}", layers=DETECTORS["rd4ad"].layers), 0)
    rd4ad.extractor.body.load_state_dict(theirs.encoder.feature_extractor.state_dict())
    copy_weights(theirs, rd4ad.student)
    own = list(rd4ad.extractor(images).values())
    check(own, taught)
    with torch.no_grad():
        found = rd4ad.student.train()(own)
        check(found, decoded)
        torch.testing.assert_close(
            distillation_loss(own, found), loss.ReverseDistillationLoss()(taught, decoded), rtol=1e-5, atol=0
        )
        copy_weights(theirs, rd4ad.student.eval())
        theirs.eval()
        check(rd4ad.student(own), theirs.decoder(theirs.bottleneck(taught)))
        expected = theirs(images)
    maps = rd4ad.score(images).anomaly_maps
    # It mirrors maps at their border without the edge pixel, so they are equal where the border is out of reach.
    inner = (slice(None), slice(16, -16), slice(16, -16))
    torch.testing.assert_close(maps[inner], expected.anomaly_map[:, 0][inner], rtol=1e-5, atol=1e-5)
    assert float(maps[inner].std()) > 1e-3


def check(found: list[Tensor], expected: list[Tensor]) -> None:
    assert [layer.shape for layer in found] == [layer.shape for layer in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
