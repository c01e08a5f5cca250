"""RD4AD: shapes of the student, loss and maps against plain NumPy, and that it finds easy defects from random weights."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from tabzoo.benchmark.metrics import image_auroc, pixel_auroc
from tabzoo.detectors import DETECTORS, ImageBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.rd4ad import Rd4ad, Rd4adSettings, Student, distillation_loss
from tabzoo.errors import InputError

SMALL = "random:resnet10t"
"""timm's smallest ResNet that a student can mirror."""
QUICK = Rd4adSettings(steps=2, batch_size=4)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor(SMALL, layers=DETECTORS["rd4ad"].layers, seed=3)


def pictures(count: int, seed: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "blocks", "widths"),
    [
        ("resnet18", (2, [2, 2, 2]), (64, 64)),
        ("resnet34", (3, [3, 4, 6]), (64, 64)),
        ("resnet50", (3, [3, 4, 6]), (64, 256)),
        ("wide_resnet50_2", (3, [3, 4, 6]), (128, 256)),
    ],
)
def test_the_student_mirrors_the_teacher(name: str, blocks: tuple[int, list[int]], widths: tuple[int, int]) -> None:
    with torch.device("meta"):  # shapes alone; numbers are those of the tests below
        teacher = build_extractor(f"random:{name}", layers=DETECTORS["rd4ad"].layers, device="meta")
        student = Rd4ad(teacher, 0).student.eval()
        taught = teacher.body(torch.empty(1, 3, 64, 64))
        decoded = student(taught)
        embedded = student.embed(torch.cat([student.fine(taught[0]), student.middle(taught[1]), taught[2]], dim=1))
    assert [layer.shape for layer in decoded] == [layer.shape for layer in taught]
    assert (len(student.embed), [len(stage) for stage in student.decode]) == blocks
    last = student.decode[-1][-1]
    assert (last.conv1.out_channels, decoded[0].shape[1]) == widths
    # What doubles a side is a transposed convolution, one in the block and one beside it, and nothing else.
    doubling = [module for module in student.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert [module.stride for module in doubling] == [(2, 2)] * 6
    assert embedded.shape[2:] == (2, 2)  # of 64 px: half of the coarsest map's side
    assert embedded.shape[1] == 2 * taught[2].shape[1]


def new_student(block: type[BasicBlock | Bottleneck], depths: list[int]) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Student(block, depths)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_the_student_written_out(block: type[BasicBlock | Bottleneck]) -> None:
    """Its maps from its weights; batch-norm in training mode, where it matters even in a new network."""
    student, expansion = new_student(block, [2, 1, 2]), block.expansion
    state = {name: value.double() for name, value in student.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, 64 * expansion, 8, 8), (3, 128 * expansion, 4, 4), (3, 256 * expansion, 2, 2)]
    fine, middle, coarse = taught = [torch.randn(shape, generator=generator, dtype=torch.double) for shape in shapes]

    def conv(maps: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(maps, weight, stride=stride, padding=weight.shape[2] // 2)

    def double(maps: Tensor, name: str) -> Tensor:
        return F.conv_transpose2d(maps, state[f"{name}.weight"], stride=2)

    def norm(maps: Tensor, name: str) -> Tensor:
        return F.batch_norm(maps, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    def halved(maps: Tensor, name: str, first: int = 0) -> Tensor:
        return norm(conv(maps, f"{name}.{first}", 2), f"{name}.{first + 1}").relu()

    def residual(maps: Tensor, name: str, change: Callable[[Tensor, str], Tensor] | None = None) -> Tensor:
        """A block; `change`, of the side, is in its first 3 x 3 convolution and in its shortcut."""
        wide, shortcut = change or conv, maps
        if change:
            shortcut = norm(change(maps, f"{name}.downsample.0"), f"{name}.downsample.1")
        steps = [wide, conv] if block is BasicBlock else [conv, wide, conv]
        for i, step in enumerate(steps, start=1):
            maps = norm(step(maps, f"{name}.conv{i}"), f"{name}.bn{i}")
            maps = (maps if i < len(steps) else maps + shortcut).relu()
        return maps

    together = torch.cat([halved(halved(fine, "fine"), "fine", 3), halved(middle, "middle"), coarse], dim=1)
    maps = residual(together, "embed.0", lambda maps, name: conv(maps, name, 2))
    maps = residual(maps, "embed.1")
    expected = []
    for stage, depth in enumerate([2, 1, 2]):
        maps = residual(maps, f"decode.{stage}.0", double)
        for i in range(1, depth):
            maps = residual(maps, f"decode.{stage}.{i}")
        expected.insert(0, maps)
    with torch.no_grad():
        decoded = student.train().double()(taught)
    torch.testing.assert_close(decoded, expected, rtol=1e-6, atol=1e-9)


def test_weights_start_as_the_references() -> None:
    """Kaiming's normal, fan out; transposed convolutions keep torch's uniform."""
    doubling = 0
    for module in new_student(BasicBlock, [2, 2, 2]).modules():
        if isinstance(module, nn.Conv2d):
            expected = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.02)
            assert float(module.weight.detach().abs().max()) > 3 * expected
        elif isinstance(module, nn.ConvTranspose2d):
            bound, doubling = (1 / (module.out_channels * 2 * 2)) ** 0.5, doubling + 1
            assert 0.99 * bound < float(module.weight.detach().abs().max()) <= bound
            assert float(module.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert doubling == 6


def test_loss_is_the_cosine_of_whole_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, 8, 8), (3, 6, 4, 4), (3, 2, 2, 2)]
    taught, decoded = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    expected = 0.0
    for one, two in zip(taught, decoded, strict=True):
        a, b = one.numpy().reshape(3, -1).astype(float), two.numpy().reshape(3, -1).astype(float)
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        expected += (1 - cosines).mean()
    assert float(distillation_loss(taught, decoded)) == pytest.approx(expected, rel=1e-6)


def test_maps_against_numpy_and_scipy(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    method, test = Rd4ad(extractor, 0, QUICK), pictures(3, 9)
    method.fit(batches([pictures(8, 1)]))
    taught = [layer.double() for layer in extractor(test).values()]
    with torch.no_grad():
        decoded = [layer.double() for layer in method.student([layer.float() for layer in taught])]
    expected = np.zeros((3, 64, 64))
    for a, b in zip(taught, decoded, strict=True):
        distance = 1 - (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)
        expected += F.interpolate(distance[:, None], size=64, mode="bilinear", align_corners=True)[:, 0].numpy()
    expected = np.stack([gaussian_filter(plane, sigma=4) for plane in expected])
    scores = method.score(test)
    np.testing.assert_allclose(scores.anomaly_maps.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(scores.image_scores.numpy(), expected.max(axis=(1, 2)), rtol=1e-4)


def test_training_step_is_adams(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    """Two steps on one batch of all images against the loop written out."""
    images = pictures(4, 2)
    method = Rd4ad(extractor, 0, QUICK)
    student = Rd4ad(extractor, 0, QUICK).student.train()
    method.fit(batches([images]))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.005, betas=(0.5, 0.999), fused=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        taught = list(extractor(images[torch.randperm(4, generator=generator)]).values())
        loss = sum(
            (1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean()
            for a, b in zip(taught, student(taught), strict=True)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    for ours, theirs in zip(method.student.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_equal_seeds_equal_numbers(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    images, test, teacher = batches(pictures(6, 1).split(4)), pictures(2, 5), extractor.sha256()
    method = Rd4ad(extractor, 0, QUICK)
    method.fit(images)
    first = method.score(test).anomaly_maps
    method.fit(images)  # a fit starts afresh
    assert torch.equal(method.score(test).anomaly_maps, first)
    other = Rd4ad(extractor, 1, QUICK)
    other.fit(images)
    assert not torch.equal(other.score(test).anomaly_maps, first)
    assert extractor.sha256() == teacher  # the teacher is left alone, batch-norm's statistics too
    for part in (slice(0, 1), slice(1, 2)):  # an image's score depends on no other image
        torch.testing.assert_close(method.score(test[part]).anomaly_maps, first[part], rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close(batches: Callable[..., ImageBatches]) -> None:
    maps = []
    for amp in (False, True):
        extractor = build_extractor(SMALL, layers=DETECTORS["rd4ad"].layers, amp=amp, channels_last=amp)
        method = Rd4ad(extractor, 0, QUICK)
        method.fit(batches([pictures(4, 1)]))
        maps.append(method.score(pictures(4, 2)).anomaly_maps)
    assert maps[1].dtype == torch.float32
    assert float((maps[1] - maps[0]).norm() / maps[0].norm()) < 0.1
    assert not torch.equal(maps[0], maps[1])


def test_what_it_refuses(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    with pytest.raises(InputError, match="no images"):
        Rd4ad(extractor, 0).fit(batches())
    for name in ("mobilenetv3_small_050", "skresnet18", "resnest14d", "resnet51q"):  # the last three are called ResNets
        with pytest.raises(InputError, match="--method rd4ad: .*resnet34"), torch.device("meta"):
            Rd4ad(build_extractor(f"random:{name}", layers=("/4", "/8", "/16"), device="meta"), 0)


def test_a_trained_student_finds_defects(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    """Patches of noise on a picture that is always the same; the measures are near chance after a single step."""

    def alike(count: int, seed: int) -> Tensor:
        coarse = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return F.interpolate(coarse, size=64, mode="bilinear") + 0.1 * pictures(count, seed)

    masks = torch.zeros(12, 64, 64)
    for i in range(6):
        masks[6 + i, 4 + 5 * i : 28 + 5 * i, 34 - 5 * i : 58 - 5 * i] = 1
    test = alike(12, 1) + 0.7 * masks[:, None] * pictures(12, 5)
    found = []
    for steps in (1, 15):
        method = Rd4ad(extractor, 3, Rd4adSettings(steps=steps, batch_size=4))
        method.fit(batches([alike(8, 3)]))
        scores = method.score(test)
        found.append((image_auroc(scores.image_scores, masks.amax((1, 2))), pixel_auroc(scores.anomaly_maps, masks)))
    (first_image, first_pixel), (image, pixel) = found
    assert image > max(0.9, first_image + 0.1)
    assert pixel > max(0.8, first_pixel + 0.1)


@pytest.mark.gpu
def test_on_a_gpu(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        method = Rd4ad(extractor.to(device), 0, QUICK)
        method.fit(batches([pictures(4, 1).to(device)]))
        found.append(method.score(pictures(2, 2).to(device)).anomaly_maps.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=1e-2)
    extractor.to("cpu")
