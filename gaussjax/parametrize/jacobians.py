"""Log-determinants of the Jacobians of the maps, in closed form, for densities of vectors.

A density p of a factor L = f(v) is the density p(f(v)) |∂f/∂v| of its vector. With both steps to Σ,
a prior of a covariance becomes one of a vector, as Hamiltonian Monte Carlo needs:

>>> from gaussjax.parametrize.factors import lower_from_vector
>>> vector = jnp.array([0.1, 0.2, 0.3])
>>> lower = lower_from_vector(vector)
>>> both = lower_log_jacobian(vector) + covariance_log_jacobian(lower)
>>> both.shape
()
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.parametrize.factors import diagonal_of_vector, fill, triangle_dim
from gaussjax.parametrize.positive import Exp, Positive


@lift
def lower_log_jacobian(
    vector: Float[Array, "... n"], *, diagonal: Positive = Exp()
) -> Float[Array, "..."]:
    """log|∂L/∂v| of `lower_from_vector`, over the entries up to the diagonal. O(d)

    Raises:
        ValueError: the vector's length is not d(d+1)/2 for any d.

    >>> lower_log_jacobian([1.0, 5.0, 2.0])
    Array(3., dtype=float32)
    """
    return jnp.sum(diagonal.log_slope(diagonal_of_vector(vector)))


@lift
def scaled_lower_log_jacobian(
    vector: Float[Array, "... n"], *, diagonal: Positive = Exp()
) -> Float[Array, "..."]:
    """log|∂L/∂v| of `scaled_lower_from_vector`, over the entries up to the diagonal. O(d)

    Raises:
        ValueError: the vector's length is not d(d+1)/2 for any d.

    >>> scaled_lower_log_jacobian([1.0, 5.0, 2.0])
    Array(5., dtype=float32)
    """
    free = diagonal_of_vector(vector)
    before = jnp.arange(len(free), dtype=free.dtype)  # entries of a row that are multiplied by Dᵢ
    return jnp.sum(diagonal.log_slope(free) + before * jnp.log(diagonal(free)))


@lift
def correlation_log_jacobian(vector: Float[Array, "... n"]) -> Float[Array, "..."]:
    """log|∂L/∂v| of `correlation_from_vector`, over the entries below the diagonal. O(d²)

    A row u / √(1 + ‖u‖²) of i free entries has (1 + ‖u‖²)^(−i/2 − 1), by the determinant lemma.

    Raises:
        ValueError: the vector's length is not d(d−1)/2 for any d.

    >>> correlation_log_jacobian([0.75]).round(4)
    Array(-0.6694, dtype=float32)
    """
    below = fill(vector, triangle_dim(vector, strict=True), offset=-1)
    count = jnp.arange(len(below), dtype=vector.dtype)
    return -jnp.sum((0.5 * count + 1) * _log_one_plus_squares(below))


@lift
def covariance_log_jacobian(lower: Float[Array, "... d d"]) -> Float[Array, "..."]:
    """log|∂Σ/∂L| of Σ = L Lᵀ, over entries up to the diagonal. O(d)

    d log 2 + Σᵢ (d + 1 − i) log Lᵢᵢ, where i counts from 1. −∞ where Lᵢᵢ is zero, NaN where it is
    negative.

    Raises:
        ValueError: `lower` is not square.

    Source: Muirhead, Aspects of Multivariate Statistical Theory, theorem 2.1.9.

    >>> covariance_log_jacobian([[1.0, 0.0], [0.5, 1.0]]).round(4)
    Array(1.3863, dtype=float32)
    """
    _errors.square("lower", lower)
    dim = lower.shape[-1]
    after = jnp.arange(dim, 0, -1, dtype=lower.dtype)
    return dim * math.log(2) + jnp.sum(after * jnp.log(jnp.diagonal(lower)))


@lift
def correlation_matrix_log_jacobian(lower: Float[Array, "... d d"]) -> Float[Array, "..."]:
    """log|∂R/∂L| of R = L Lᵀ, L with unit rows, over entries below the diagonal. O(d)

    Σᵢ (d − i) log Lᵢᵢ, where i counts from 1. −∞ where Lᵢᵢ is zero, NaN where it is negative.

    Raises:
        ValueError: `lower` is not square.

    Source: Lewandowski, Kurowicka & Joe, J. Multivariate Analysis 100 (2009), §3.

    >>> correlation_matrix_log_jacobian([[1.0, 0.0], [0.6, 0.8]])
    Array(0., dtype=float32)
    """
    _errors.square("lower", lower)
    pivots = jnp.diagonal(lower)[:-1]  # 0 log 0 of the last would be NaN
    after = jnp.arange(len(pivots), 0, -1, dtype=lower.dtype)
    return jnp.sum(after * jnp.log(pivots))


def _log_one_plus_squares(rows: Array) -> Array:
    """log(1 + ‖u‖²) of each row: with its digits for small u, and for squares that overflow."""
    unit = jax.lax.stop_gradient(jnp.maximum(1.0, jnp.max(jnp.abs(rows), axis=1, initial=0.0)))
    squares = jnp.sum(jnp.square(rows / unit[:, None]), axis=1)
    return 2 * jnp.log(unit) + jnp.log1p(squares + (jnp.square(1 / unit) - 1))
