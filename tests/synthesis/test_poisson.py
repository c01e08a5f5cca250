"""The Poisson solver against a sparse direct solve."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray

from tabzoo.synthesis.poisson import sine_tables, solve


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
