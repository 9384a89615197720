"""Dependence between the coordinates of one Gaussian."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.covariances import BlockDiagonal, Covariance, Diagonal, pairs, restricted
from gaussjax.covariances.base import BLOCK
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.excess import logdet_of_gram
from gaussjax.linalg.ranges import divided
from gaussjax.linalg.triangular import solve


def mutual_information(g: Gaussian, indices: Any, others: Any = None) -> Float[Array, "..."]:
    """I(x; y) = ½ log(|Σx||Σy| / |Σxy|) ≥ 0 between some coordinates and others, in nats. O(d³)

    `indices` and `others` are static, as in `marginal`; without `others` they are all that remain.
    From the triangle [[A, 0], [B, C]] of Σxy it is ½ log|I + T Tᵀ| with T = C⁻¹B: exact however
    weakly the two depend on each other, zero (with a zero gradient) where they do not, infinite
    where one determines a coordinate of the other.

    Raises:
        TypeError: an index is not an integer.
        ValueError: an index is out of range, repeated, or in both.

    Source: Cover & Thomas, Elements of Information Theory, eq. 8.52.

    >>> from gaussjax import from_covariance
    >>> g = from_covariance([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]])
    >>> print(f"{mutual_information(g, [0]):.4f}")  # −½ log(1 − 0.6²)
    0.2231
    """
    _errors.instance("g", g, Gaussian, order="g, indices, others")
    first = _errors.indices(indices, g.dim)
    rest = tuple(i for i in range(g.dim) if i not in first)
    second = rest if others is None else _errors.indices(others, g.dim)
    if set(first) & set(second):
        raise ValueError(f"indices and others must not overlap, got {first} and {second}.")
    return _mutual_information(g, first=first, second=second)


@lift
def total_correlation(g: Gaussian) -> Float[Array, "..."]:
    """TC = Σ H(xᵢ) − H(x) = KL(g‖Π N(μᵢ, Σᵢᵢ)) ≥ 0, in nats. O(d³), by structure

    From the triangle L of Σ it is ½ Σ log(1 + Σⱼ﹤ᵢ Lᵢⱼ²/Lᵢᵢ²), a sum of terms that are not
    negative: exact however weak the dependence is, zero (with a zero gradient) for a diagonal Σ,
    infinite for a coordinate that others determine.

    Source: Watanabe, IBM J. Res. Dev. 4 (1960).

    >>> from gaussjax import from_covariance
    >>> g = from_covariance([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]])
    >>> print(f"{total_correlation(g):.4f}")
    0.2231
    """
    cov = g.cov
    if not _takes_triangle(cov):
        return 0.5 * pairs.divergence(cov, Diagonal(cov.stddev()))
    lower = restricted.triangle(cov)
    ratios = divided(jnp.tril(lower, -1), jnp.diagonal(lower)[:, None])
    return 0.5 * jnp.sum(jnp.log1p(jnp.sum(jnp.square(ratios), axis=1)))


@lift
def _mutual_information(
    g: Gaussian, *, first: tuple[int, ...], second: tuple[int, ...]
) -> Float[Array, "..."]:
    order, n = np.asarray(first + second, int), len(first)
    cov, root = g.cov, g.cov.covariance_root()
    if root is not None and root.ndim == 1:
        return jnp.zeros((), root.dtype)
    if not np.array_equal(order, np.arange(cov.dim)):
        cov = restricted.marginal(cov, order)
    if not _takes_triangle(cov):
        parts = [restricted.marginal(cov, np.arange(*span)) for span in ((0, n), (n, cov.dim))]
        return 0.5 * pairs.divergence(cov, BlockDiagonal(tuple(p for p in parts if p.dim)))
    lower = restricted.triangle(cov)
    below, last = lower[n:, :n], lower[n:, n:]
    regular = jnp.all(jnp.diagonal(lower) > 0)
    ratio = solve(jnp.where(regular, last, jnp.eye(len(last), dtype=last.dtype)), below)
    return jnp.where(regular, 0.5 * logdet_of_gram(ratio), _of_singular(lower, n))


def _of_singular(lower: Array, n: int) -> Array:
    """Infinite where a row that the others of its own do not determine has no pivot; else NaN."""
    lost = (jnp.diagonal(lower) == 0)[n:] & jnp.any(lower[n:, :n] != 0, axis=1)
    return jnp.where(jnp.any(lost), jnp.inf, jnp.nan)


def _takes_triangle(cov: Covariance) -> bool:
    """Whether a d × d array is there already, or small."""
    return pairs.is_dense(cov) or cov.dim <= BLOCK
