"""Rows of data with weights and a mask, centred: what every estimator reads.

The mean is taken twice, the second time of what the first one leaves, and kept in two words of the
dtype. So data far from zero lose no digits: centred rows are as exact as the data.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from gaussjax._lift import lift
from gaussjax._struct import exported
from gaussjax.estimation import _sentences
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import lengths

BLOCK = 256
"""Rows that are summed before their sums are: products of few columns are added one by one on CPUs,
and a million squares in float32 would lose two digits so."""


@exported
class Centred(NamedTuple):
    """Rows √w (x − μ) `(n, d)`, whose product FᵀF is the scatter Σ w (x − μ)(x − μ)ᵀ.

    The mean is `mean + low`, the weight `Σ w`; what is invalid makes the weight NaN, and the mean
    and the rows with it.
    """

    weight: Float[Array, ""]
    mean: Float[Array, " d"]
    low: Float[Array, " d"]
    rows: Float[Array, "n d"]


def centred(x: Float[Array, "n d"], weights: Array | None, mask: Array | None) -> Centred:
    """Of one data set. O(n d)"""
    each = row_weights(x, weights, mask)
    total = total_weight(len(x), each, weights, mask)
    x = x if mask is None else jnp.where(mask[:, None], x, 0.0)
    count = jnp.where(total == 0, 1.0, total)
    first = rounded(weighted_sum(each, x) / count)
    left = x - first[None]
    rest = rounded(weighted_sum(each, left) / count)
    mean, low = two_sum(first, rest)
    rows = jnp.sqrt(each)[:, None] * (left - rest[None])
    return Centred(total, mean, low, rows)


def row_weights(x: Array, weights: Array | None, mask: Array | None) -> Float[Array, " n"]:
    """What every row counts: 1 if nothing is said, 0 off the mask; all NaN if one is invalid."""
    n = len(x)
    for name, value in (("weights", weights), ("mask", mask)):
        if value is not None:
            _sentences.one_per_row(name, value.shape, n)
    each = jnp.ones(n, x.dtype) if weights is None else weights
    each = each if mask is None else jnp.where(mask, each, 0.0)
    return jnp.where(jnp.all((each >= 0) & (each < jnp.inf)), each, jnp.nan)


def total_weight(n: int, each: Array, weights: Array | None, mask: Array | None) -> Array:
    """Σ w; a count is an integer, and so exact."""
    if weights is not None:
        return jnp.sum(jnp.sum(_blocks(each), axis=1))
    count = jnp.array(n) if mask is None else jnp.sum(mask, dtype=int)
    return count.astype(each.dtype)


def weighted_sum(each: Float[Array, " n"], rows: Float[Array, "n d"]) -> Float[Array, " d"]:
    """Σ wᵢ xᵢ, by blocks."""
    return jnp.sum(dot(_blocks(each)[:, None], _blocks(rows)), axis=(0, 1))


def scatter(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """FᵀF of rows F, exactly symmetric, by blocks."""
    blocks = _blocks(rows)
    lower = jnp.tril(jnp.sum(dot(jnp.swapaxes(blocks, 1, 2), blocks), axis=0))
    return lower + jnp.tril(lower, -1).T


def _blocks(rows: Array) -> Array:
    """Rows in blocks of `BLOCK`, the last one padded by zeros."""
    count = -(-len(rows) // BLOCK)
    if count <= 1:
        return rows[None]
    pad = count * BLOCK - len(rows)
    rows = rows if pad == 0 else jnp.pad(rows, ((0, pad), *[(0, 0)] * (rows.ndim - 1)))
    return rows.reshape(count, BLOCK, *rows.shape[1:])


def located(weight: Array, mean: Float[Array, " d"]) -> Float[Array, " d"]:
    """The mean of rows of some weight: there is none of no rows, where moments have zero."""
    return jnp.where(weight > 0, mean, jnp.nan)


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


def varies(centre: Array, rows: Array, weight: Array) -> Bool[Array, " d"]:
    """Whether a column is more than its mean's rounding: that of a constant one is none."""
    noise = 8 * float(jnp.finfo(rows.dtype).eps)
    return lengths(rows.T) > noise * jnp.sqrt(weight) * jnp.abs(centre)


@lift
def centre(
    x: Float[Array, "... n d"],
    *,
    weights: Float[Array, "... n"] | None = None,
    mask: Bool[Array, "... n"] | None = None,
) -> tuple[Array, Array, Array, Array]:
    """`centred`, lifted."""
    return tuple(centred(x, weights, mask))  # type: ignore[return-value]
