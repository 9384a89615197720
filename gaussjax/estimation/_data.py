"""Rows of data with weights and a mask, centred: what every estimator reads.

The mean is taken twice, the second time of what the first one leaves, and kept in two words of the
dtype. So data far from zero lose no digits: centred rows are as exact as the data.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax._lift import lift
from gaussjax._struct import exported
from gaussjax.estimation import _sentences
from gaussjax.linalg import moments
from gaussjax.linalg.ranges import lengths


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
    mean, low, rows = moments.centred(x, each, total)
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
        return jnp.sum(jnp.sum(moments.blocks(each), axis=1))
    count = jnp.array(n) if mask is None else jnp.sum(mask, dtype=int)
    return count.astype(each.dtype)


def located(weight: Array, mean: Float[Array, " d"]) -> Float[Array, " d"]:
    """The mean of rows of some weight: there is none of no rows, where moments have zero."""
    return jnp.where(weight > 0, mean, jnp.nan)


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
