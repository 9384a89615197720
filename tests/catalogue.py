"""The structures under test: a new one is one more line here."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import block_diag, toeplitz

import gaussjax as gj

Case = tuple[gj.Covariance, np.ndarray]  # a structure and the Σ it stands for, in float64


def random_lower(rng: np.random.Generator, d: int, dtype=np.float32) -> np.ndarray:
    """A well-conditioned Cholesky factor."""
    lower = np.tril(rng.normal(size=(d, d)) / np.sqrt(d + 1), -1)
    return (lower + np.diag(rng.uniform(0.7, 1.5, d))).astype(dtype)


def _isotropic(rng, d, dtype) -> Case:
    scale = np.asarray(rng.uniform(0.5, 2.0), dtype)
    return gj.Isotropic(jnp.asarray(scale), d), float(scale) ** 2 * np.eye(d)


def _diagonal(rng, d, dtype) -> Case:
    scale = rng.uniform(0.5, 2.0, d).astype(dtype)
    return gj.Diagonal(jnp.asarray(scale)), np.diag(scale.astype(float) ** 2)


def _cholesky(rng, d, dtype) -> Case:
    lower = random_lower(rng, d, dtype)
    return gj.Cholesky(jnp.asarray(lower)), lower.astype(float) @ lower.T.astype(float)


def _precision(rng, d, dtype) -> Case:
    lower = random_lower(rng, d, dtype)
    return gj.PrecisionCholesky(jnp.asarray(lower)), np.linalg.inv(
        lower.astype(float) @ lower.T.astype(float)
    )


def _root(rng, d, dtype) -> Case:
    factor = np.concatenate([random_lower(rng, d), 0.5 * rng.normal(size=(d, 1))], 1).astype(dtype)
    return gj.Root(jnp.asarray(factor)), factor.astype(float) @ factor.T.astype(float)


def _low_rank(rng, d, dtype) -> Case:
    scale, factor = rng.uniform(0.5, 2.0, d).astype(dtype), rng.normal(size=(d, 2)).astype(dtype)
    dense = np.diag(scale.astype(float) ** 2) + factor.astype(float) @ factor.T.astype(float)
    return gj.LowRank(jnp.asarray(scale), jnp.asarray(factor)), dense


def _kronecker(rng, d, dtype) -> Case:
    size = _divisor(d)
    (a, first), (b, second) = _cholesky(rng, size, dtype), _precision(rng, d // size, dtype)
    return gj.Kronecker((a, b)), np.kron(first, second)


def _kronecker_plus_diagonal(rng, d, dtype) -> Case:
    (first, a), (second, b) = _kronecker(rng, d, dtype), _isotropic(rng, d, dtype)
    return gj.KroneckerPlusDiagonal(first, second), a + b


def _block_diagonal(rng, d, dtype) -> Case:
    parts = [_cholesky(rng, d // 2, dtype), _low_rank(rng, d - d // 2, dtype)]
    return gj.BlockDiagonal(tuple(c for c, _ in parts)), block_diag(*[m for _, m in parts])


def _stacked_blocks(rng, d, dtype) -> Case:
    count = max(d // _divisor(d), 1)
    parts = [_cholesky(rng, d // count, dtype) for _ in range(count)]
    blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[c for c, _ in parts])
    return gj.StackedBlocks(blocks), block_diag(*[m for _, m in parts])


def _circulant(rng, d, dtype) -> Case:
    half = rng.uniform(0.5, 3.0, d // 2 + 1)
    spectrum = np.concatenate([half, half[1 : (d + 1) // 2][::-1]]).astype(dtype)
    column = np.fft.ifft(spectrum.astype(float)).real
    return gj.Circulant(jnp.asarray(spectrum)), toeplitz(column)


def _toeplitz(rng, d, dtype) -> Case:
    lags, rate = np.arange(d), rng.uniform(0.4, 0.8)
    column = (2 * rate**lags * np.cos(0.3 * lags) + 0.4 * (lags == 0)).astype(dtype)
    return gj.Toeplitz(jnp.asarray(column)), toeplitz(column.astype(float))


def _banded_precision(rng, d, dtype) -> Case:
    lower = (0.3 * rng.normal(size=(3, d))).astype(dtype)
    lower[0] = rng.uniform(0.7, 1.5, d)
    matrix = np.zeros((d, d))
    for k, row in enumerate(lower[:d]):
        matrix += np.diag(row[: d - k].astype(float), -k)
    return gj.BandedPrecision(jnp.asarray(lower)), np.linalg.inv(matrix @ matrix.T)


def _divisor(d: int) -> int:
    """The smallest divisor above one."""
    return next((k for k in range(2, d) if d % k == 0), max(d, 1))


STRUCTURES: dict[str, Callable[..., Case]] = {
    "isotropic": _isotropic,
    "diagonal": _diagonal,
    "cholesky": _cholesky,
    "precision": _precision,
    "root": _root,
    "low_rank": _low_rank,
    "kronecker": _kronecker,
    "kronecker_plus_diagonal": _kronecker_plus_diagonal,
    "block_diagonal": _block_diagonal,
    "stacked_blocks": _stacked_blocks,
    "circulant": _circulant,
    "toeplitz": _toeplitz,
    "banded_precision": _banded_precision,
}

DENSE = {"cholesky", "precision", "root", "kronecker_plus_diagonal"}
