"""Quotients, lengths, units and roots of numbers whose squares leave the range, or are zero."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_jvp
def quotient(x: Array, y: Array) -> Array:
    """Elementwise x / y, whose derivatives do not square y as JAX's do."""
    return x / y


@quotient.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    z = quotient(x, y)
    return z, quotient(dx, y) - z * quotient(dy, y)


def divided(vector: Float[Array, " d"], diagonal: Float[Array, " d"]) -> Float[Array, " d"]:
    """v / σ; where σ is zero, zero or infinite as v is zero or not."""
    zero = diagonal == 0
    off = jnp.where(vector == 0, 0.0, jnp.inf).astype(vector.dtype)
    return jnp.where(zero, off, quotient(vector, jnp.where(zero, 1.0, diagonal)))


def unit_of(size: Array) -> Array:
    """A power of two near each size, to divide by without rounding; 1 for zero. A constant"""
    size = lax.stop_gradient(size)
    unit = lax.reduce_precision(size, int(jnp.finfo(size.dtype).nexp), 0)
    return jnp.where((unit > 0) & (unit < jnp.inf), unit, 1.0)


def lengths(rows: Float[Array, "d k"]) -> Float[Array, " d"]:
    """Length of each row, √Σ xᵢ². That of zeros has a zero derivative."""
    units = unit_of(jnp.max(jnp.abs(rows), axis=1, initial=0))
    squares = jnp.sum(jnp.square(rows / units[:, None]), axis=1)
    return units * jnp.where(squares == 0, 0.0, jnp.sqrt(jnp.where(squares == 0, 1.0, squares)))


def length(vector: Float[Array, " d"]) -> Float[Array, ""]:
    """√Σ xᵢ² of a distance: at its kink, zero, it has the derivative zero and no second."""
    unit = unit_of(jnp.max(jnp.abs(vector), initial=0))
    return unit * root_of_square(jnp.sum(jnp.square(vector / unit)))


@jax.custom_jvp
def root_of_square(square: Array) -> Array:
    """√x of a squared distance x ≥ 0, whose kink at zero has the derivative zero and no second."""
    return jnp.sqrt(square)


@root_of_square.defjvp
def _(primals, tangents):
    return root_of_square(*primals), _slope_of_root(*primals) * tangents[0]


@jax.custom_jvp
def _slope_of_root(square: Array) -> Array:
    zero = square == 0
    return jnp.where(zero, 0.0, 0.5 / jnp.sqrt(jnp.where(zero, 1.0, square)))


@_slope_of_root.defjvp
def _(primals, tangents):
    (square,) = primals
    slope = _slope_of_root(square)
    curvature = jnp.where(square == 0, jnp.nan, -0.5 * slope / jnp.where(square == 0, 1.0, square))
    return slope, curvature * tangents[0]
