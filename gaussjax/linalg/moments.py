"""Mean and scatter of rows that count w each, without the loss of digits of Σ w x xᵀ − W μ μᵀ.

Means are taken twice, the second time of what the first one leaves, and kept in two words of the
dtype: rows far from zero are centred as exactly as they are known.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import limits
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.sums import Parts, root_of_entries, with_derivative

BLOCK = 256
"""Rows that are summed before their sums are: products of few columns are added one by one on CPUs,
and a million squares in float32 would lose two digits so."""

PARTS, ROWS = 256, 4096
"""At most so many equal parts, which threads share, and at least so many rows in each. One thread
reads a number of rows without such parts."""


def mean_and_scatter(
    rows: Float[Array, "n d"], weights: Float[Array, " n"] | None
) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, "d d"]]:
    """The mean in two words and Σ w (x − μ)(x − μ)ᵀ, exactly symmetric. No derivatives. O(n d²)

    Weights count 1 if there are none; of no weight the mean is zero.
    """
    rows, weights = lax.stop_gradient((rows, weights))
    n, d = rows.shape
    found = _moments if rows.size > 0 and d <= limits.COLUMNS else _moments_of_wide
    least = max(ROWS, 8 * d)  # a part's scatter is small beside it
    count = next(c for c in range(PARTS, 0, -1) if n % c == 0 and (c == 1 or n // c >= least))
    if count == 1:
        (mean, low), matrix = found(rows, jnp.ones(n, rows.dtype) if weights is None else weights)
        return mean, low, matrix
    parts = rows.reshape(count, -1, d)
    if weights is None:
        ones = jnp.ones(n // count, rows.dtype)
        means, scatters = jax.vmap(found, (0, None))(parts, ones)
        each = jnp.full(count, n // count, rows.dtype)
    else:
        split = weights.reshape(count, -1)
        means, scatters = jax.vmap(found)(parts, split)
        each = jnp.sum(split, axis=1)
    mean, low, between = centred(means[:, 0], each, jnp.sum(each), means[:, 1])
    return mean, low, jnp.sum(scatters, axis=0) + scatter(between)


@kernel("n d, n -> 2 d, d d", native="moments", single=True)
def _moments(rows: Array, weights: Array) -> tuple[Array, Array]:
    return _in_blocks(rows, weights)


@kernel("n d, n -> 2 d, d d")
def _moments_of_wide(rows: Array, weights: Array) -> tuple[Array, Array]:
    return _in_blocks(rows, weights)


def _in_blocks(rows: Array, weights: Array) -> tuple[Array, Array]:
    """The words of the mean, as a matrix, and the scatter."""
    mean, low, left = centred(rows, weights, jnp.sum(jnp.sum(blocks(weights), axis=1)))
    return jnp.stack([mean, low]), scatter(left)


def centred(
    rows: Float[Array, "n d"],
    weights: Float[Array, " n"],
    total: Float[Array, ""],
    lows: Float[Array, "n d"] | None = None,
) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, "n d"]]:
    """The mean in two words and rows √w (x − μ), of rows that may be of two words as well."""
    count = jnp.where(total == 0, 1.0, total)
    first = rounded(weighted_sum(weights, rows) / count)
    left = rows - first[None]
    left = left if lows is None else left + lows
    rest = rounded(weighted_sum(weights, left) / count)
    mean, low = two_sum(first, rest)
    return mean, low, jnp.sqrt(weights)[:, None] * (left - rest[None])


def root_of_rows(
    matrix: Float[Array, "d d"],
    rows: Float[Array, "n d"],
    again: Callable[[], Array] | None = None,
) -> Float[Array, "d d"]:
    """Lower R with R Rᵀ = FᵀF of rows F, as `sums.root_of_sum`: they are read only for a QR. O(d³)

    Where nothing but a QR or a derivative reads them, `again` computes them in place of `rows`.
    """
    if 0 in rows.shape:
        return jnp.zeros_like(matrix)
    fixed = lax.stop_gradient(rows)
    again = again or (lambda: fixed)
    lower = root_of_entries(lax.stop_gradient(matrix), lambda: lax.stop_gradient(again()).T)
    return with_derivative(lower, Parts(rows.T, None))


def weighted_sum(each: Float[Array, " n"], rows: Float[Array, "n d"]) -> Float[Array, " d"]:
    """Σ wᵢ xᵢ, by blocks."""
    return jnp.sum(dot(blocks(each)[:, None], blocks(rows)), axis=(0, 1))


def scatter(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """FᵀF of rows F, exactly symmetric, by blocks if there are few columns."""
    if rows.shape[1] > limits.COLUMNS:
        return gram(rows.T)
    split = blocks(rows)
    lower = jnp.tril(jnp.sum(dot(jnp.swapaxes(split, 1, 2), split), axis=0))
    return lower + jnp.tril(lower, -1).T


def blocks(rows: Array) -> Array:
    """Rows in blocks of `BLOCK`, the last one padded by zeros."""
    count = -(-len(rows) // BLOCK)
    if count <= 1:
        return rows[None]
    pad = count * BLOCK - len(rows)
    rows = rows if pad == 0 else jnp.pad(rows, ((0, pad), *[(0, 0)] * (rows.ndim - 1)))
    return rows.reshape(count, BLOCK, *rows.shape[1:])


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded a + b, and exactly what the rounding took away.

    Source: Knuth, The Art of Computer Programming, vol. 2, §4.2.2, theorem B.
    """
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def rounded(value: Array) -> Array:
    """`value` with one bit less. A mean that XLA multiplies out within a sum is not rounded there.

    And one that is rounded in one place and not in another is no mean to centre by.
    """
    bits = jnp.finfo(value.dtype)
    return lax.reduce_precision(value, int(bits.nexp), int(bits.nmant) - 1)
