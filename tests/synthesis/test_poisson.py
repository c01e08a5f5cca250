"""The Poisson solver against a sparse direct solve, and blending against OpenCV, also with masks of any shape."""

import cv2
import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.synthesis.poisson import blend, clone_mask, sine_tables, solve

SIZE = 64


def direct(rhs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The five-point Laplace equation with zero boundary on [H, W], by SciPy, written out."""
    h, w = rhs.shape[0] - 2, rhs.shape[1] - 2
    second = [
        scipy.sparse.diags([np.ones(n - 1), np.full(n, -2.0), np.ones(n - 1)], [-1, 0, 1])
        for n in (h, w)  # type: ignore[list-item]
    ]
    laplace = scipy.sparse.kron(second[0], scipy.sparse.eye(w)) + scipy.sparse.kron(scipy.sparse.eye(h), second[1])
    solution = np.zeros_like(rhs)
    solution[1:-1, 1:-1] = scipy.sparse.linalg.spsolve(laplace.tocsc(), rhs[1:-1, 1:-1].ravel()).reshape(h, w)
    return solution


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_against_a_sparse_direct_solve(dtype: torch.dtype, tolerance: float) -> None:
    generator = np.random.default_rng(0)
    canvas, samples = 48, 40
    rows, columns = generator.integers(3, canvas + 1, (2, samples))
    rhs = generator.normal(size=(samples, canvas, 3, canvas))
    solved = solve(torch.tensor(rhs, dtype=dtype), torch.tensor(rows), torch.tensor(columns)).double().numpy()
    for i, (h, w) in enumerate(zip(rows, columns, strict=True)):
        for channel in range(3):
            expected = direct(rhs[i, :h, channel, :w])
            error = np.abs(solved[i, :h, channel, :w] - expected).max() / max(np.abs(expected).max(), 1e-12)
            assert error <= tolerance
        outside = solved[i].copy()
        outside[:h, :, :w] = 0
        assert not outside.any()


def test_bases_are_orthonormal() -> None:
    basis = sine_tables(20, torch.float64, torch.device("cpu")).basis
    for size in (3, 8, 20):
        unknown = basis[size, 1 : size - 1, 1 : size - 1]
        torch.testing.assert_close(unknown @ unknown.T, torch.eye(size - 2, dtype=torch.float64))
        assert float(basis[size].abs().sum()) == pytest.approx(float(unknown.abs().sum()))


# --- blending


def blobs(generator: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
    """Masks of random ellipses and holes, each cropped to its bounding box."""
    masks = []
    while len(masks) < count:
        mask = np.zeros((SIZE - 2, SIZE - 2), np.uint8)
        for _ in range(generator.integers(1, 4)):
            centre, axes = generator.integers(12, SIZE - 14, 2).tolist(), generator.integers(6, 20, 2).tolist()
            cv2.ellipse(mask, centre, axes, float(generator.integers(180)), 0, 360, 255, -1)
        cv2.circle(mask, generator.integers(20, SIZE - 20, 2).tolist(), 3, 0, -1)
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if min(mask.shape) > 14:
            masks.append(mask)
    return masks


def eroded(mask: Tensor) -> Tensor:
    """A mask after three erosions by a 3 x 3 square, int16 [B, N, N]: where OpenCV takes the source's gradient."""
    square = np.ones((1, 3, 3), bool)
    return torch.from_numpy(scipy.ndimage.binary_erosion(mask.numpy(), square, iterations=3)).short()


@pytest.mark.parametrize("mixed", [False, True])
def test_masks_of_any_shape(images: Tensor, mixed: bool) -> None:
    generator = np.random.default_rng(0)
    masks = blobs(generator, 60)
    canvas = torch.zeros(60, SIZE, SIZE, dtype=torch.bool)
    source, destination = (torch.zeros(60, SIZE, 3, SIZE, dtype=torch.int16) for _ in range(2))
    expected = []
    for i, mask in enumerate(masks):
        h, w = mask.shape
        y, x, top, left = generator.integers(0, 224 - SIZE, 4)
        normal = images[i % 32].permute(1, 2, 0).contiguous().numpy()
        # OpenCV clears the border of the mask that it is given: give it one more pixel all around.
        patch = images[(i * 7 + 1) % 32, :, y : y + h + 2, x : x + w + 2].permute(1, 2, 0).contiguous().numpy()
        centre = (int(left) + w // 2, int(top) + h // 2)
        kind = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
        made = cv2.seamlessClone(patch, normal, np.pad(mask, 1), centre, kind)
        expected.append(made[top : top + h, left : left + w])
        canvas[i, :h, :w] = torch.from_numpy(mask > 0)
        source[i, :h, :, :w] = torch.from_numpy(patch[1:-1, 1:-1]).transpose(1, 2)
        destination[i, :h, :, :w] = torch.from_numpy(normal[top : top + h, left : left + w]).transpose(1, 2)
    rows, columns = (torch.tensor([mask.shape[axis] for mask in masks]) for axis in (0, 1))
    ours = blend(source, destination, eroded(canvas), rows, columns, torch.full((60,), mixed))
    changed = equal = 0
    for i, reference in enumerate(expected):
        h, w, _ = reference.shape
        blended = ours[i, :h, :, :w].transpose(1, 2).numpy()
        before = destination[i, :h, :, :w].transpose(1, 2).numpy()
        difference = np.abs(blended.astype(int) - reference)
        assert difference.max() <= 1
        touched = (reference != before) | (blended != before)
        changed, equal = changed + int(touched.sum()), equal + int((touched & (difference == 0)).sum())
    assert changed > 40_000
    assert equal / changed >= 0.998


def test_clone_mask_is_the_eroded_rectangle() -> None:
    rows, columns = torch.tensor([9, 7, 20, 6]), torch.tensor([12, 20, 8, 20])
    i = torch.arange(20)
    rectangle = (i < rows[:, None])[:, :, None] & (i < columns[:, None])[:, None]
    assert torch.equal(eroded(rectangle), clone_mask(rows, columns, 20))
    assert clone_mask(rows, columns, 20)[0].sum() == 3 * 6


@pytest.mark.parametrize("mixed", [False, True])
def test_values_outside_the_rectangle_have_no_influence(mixed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    source, destination = (
        torch.randint(0, 256, (4, 30, 3, 30), generator=generator, dtype=torch.int16) for _ in range(2)
    )
    rows, columns = torch.tensor([30, 12, 20, 9]), torch.tensor([11, 30, 17, 9])
    guided, modes = clone_mask(rows, columns, 30), torch.full((4,), mixed)
    first = blend(source, destination, guided, rows, columns, modes)
    i = torch.arange(30)
    inside = ((i < rows[:, None])[:, :, None] & (i < columns[:, None])[:, None])[:, :, None]
    other = blend(
        torch.where(inside, source, 255 - source), torch.where(inside, destination, 7), guided, rows, columns, modes
    )
    assert torch.equal(first * inside, other * inside)
    assert torch.equal(torch.where(inside, 0, first), torch.where(inside, 0, destination).to(torch.uint8))


def test_blending_an_image_into_itself_changes_nothing() -> None:
    image = torch.randint(0, 256, (2, 20, 3, 20), dtype=torch.int16)
    side = torch.tensor([20, 15])
    made = blend(image, image, clone_mask(side, side, 20), side, side, torch.tensor([True, False]))
    assert torch.equal(made, image.to(torch.uint8))
