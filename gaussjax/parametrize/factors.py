"""Vectors to triangles and back.

>>> vector_from_lower([[1.0, 0.0], [3.0, 1.0]])
Array([0., 3., 0.], dtype=float32)
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.linalg.products import diagonal as diagonal_of
from gaussjax.linalg.products import diagonal_matrix, linear
from gaussjax.parametrize.positive import Exp, Positive


def vector_size(dim: int) -> int:
    """Free entries of a lower triangle: d(d+1)/2.

    Raises:
        TypeError, ValueError: `dim` is not an integer, or negative.

    >>> vector_size(3)
    6
    """
    dim = _errors.dimension("dim", dim)
    return dim * (dim + 1) // 2


@lift
def lower_from_vector(
    vector: Float[Array, "... n"], *, diagonal: Positive = Exp()
) -> Float[Array, "... d d"]:
    """Lower triangle from `(..., d(d+1)/2)`, its diagonal made positive by `diagonal`. O(d²)

    Raises:
        ValueError: the vector's length is not d(d+1)/2 for any d.

    Source: Pinheiro & Bates, Statistics and Computing 6 (1996), §2.2 (log-Cholesky).

    >>> from gaussjax.parametrize import Softplus
    >>> lower_from_vector([0.0, 3.0, 0.0], diagonal=Softplus()).round(4)
    Array([[0.6931, 0.    ],
           [3.    , 0.6931]], dtype=float32)
    """
    return _map_diagonal(diagonal, fill(vector, triangle_dim(vector)))


@lift
def vector_from_lower(
    lower: Float[Array, "... d d"], *, diagonal: Positive = Exp()
) -> Float[Array, "... n"]:
    """Inverse of `lower_from_vector`. O(d²)

    Raises:
        ValueError: `lower` is not square.

    >>> vector_from_lower([[1.0, 0.0], [3.0, 1.0]])
    Array([0., 3., 0.], dtype=float32)
    """
    _errors.square("lower", lower)
    return entries(_map_diagonal(diagonal.inverse, lower))


@lift
def scaled_lower_from_vector(
    vector: Float[Array, "... n"], *, diagonal: Positive = Exp()
) -> Float[Array, "... d d"]:
    """L = D U from `(..., d(d+1)/2)`: U unit lower triangular, D the positive diagonal. O(d²)

    The scale of a row is one number, so units can change without touching the other entries.

    Raises:
        ValueError: the vector's length is not d(d+1)/2 for any d.

    Source: Pourahmadi, Biometrika 86 (1999), §2 (modified Cholesky).

    >>> scaled_lower_from_vector([0.0, 3.0, math.log(2.0)]).round(4)
    Array([[1., 0.],
           [6., 2.]], dtype=float32)
    """
    free = fill(vector, triangle_dim(vector))
    scale = diagonal(diagonal_of(free))
    return scale[:, None] * _map_diagonal(jnp.ones_like, free)


@lift
def vector_from_scaled_lower(
    lower: Float[Array, "... d d"], *, diagonal: Positive = Exp()
) -> Float[Array, "... n"]:
    """Inverse of `scaled_lower_from_vector`. O(d²)

    Raises:
        ValueError: `lower` is not square.

    >>> vector_from_scaled_lower([[1.0, 0.0], [3.0, 1.0]])
    Array([0., 3., 0.], dtype=float32)
    """
    _errors.square("lower", lower)
    scale = diagonal_of(lower)
    unit = lower / scale[:, None]
    free = _map_diagonal(lambda _: diagonal.inverse(scale), unit)
    return entries(free)


def correlation_size(dim: int) -> int:
    """Free entries of a correlation matrix: d(d−1)/2.

    Raises:
        TypeError, ValueError: `dim` is not an integer, or negative.

    >>> correlation_size(3)
    3
    """
    dim = _errors.dimension("dim", dim)
    return dim * (dim - 1) // 2


@lift
def correlation_from_vector(vector: Float[Array, "... n"]) -> Float[Array, "... d d"]:
    """Lower L with unit rows, so L Lᵀ is a correlation matrix, from `(..., d(d−1)/2)`. O(d²)

    The rows of a unit lower triangle divided by their norms: any finite vector gives a valid
    factor, and the map is one to one.

    Raises:
        ValueError: the vector's length is not d(d−1)/2 for any d.

    Source: Pinheiro & Bates, Statistics and Computing 6 (1996), §2.3 (in Cartesian form).

    >>> correlation_from_vector([0.75])
    Array([[1. , 0. ],
           [0.6, 0.8]], dtype=float32)
    """
    dim = triangle_dim(vector, strict=True)
    unit = fill(vector, dim, offset=-1) + jnp.eye(dim, dtype=vector.dtype)
    # Squares of the entries may overflow, and the reciprocal of what is close to the largest number
    # is not in the range of the dtype.
    largest = jnp.max(jnp.abs(unit), axis=1, keepdims=True)
    size = jnp.minimum(largest, 0.125 * float(jnp.finfo(unit.dtype).max))
    scaled = unit / jax.lax.stop_gradient(size)
    return scaled / jnp.sqrt(jnp.sum(jnp.square(scaled), axis=1, keepdims=True))


@lift
def vector_from_correlation(lower: Float[Array, "... d d"]) -> Float[Array, "... n"]:
    """Inverse of `correlation_from_vector`. O(d²)

    Raises:
        ValueError: `lower` is not square.

    >>> vector_from_correlation([[1.0, 0.0], [0.6, 0.8]])
    Array([0.75], dtype=float32)
    """
    _errors.square("lower", lower)
    unit = lower / diagonal_of(lower)[:, None]
    return entries(unit, offset=-1)


def fill(vector: Array, size: int, *, offset: int = 0) -> Array:
    """Square matrix with the vector's entries in its lower triangle, row by row."""
    return _triangle(size, offset)[0](vector)


def entries(lower: Array, *, offset: int = 0) -> Array:
    """The vector with the entries of a lower triangle, row by row."""
    return _triangle(lower.shape[-1], offset)[1](lower)


@functools.cache
def _triangle(size: int, offset: int) -> tuple[Callable[[Array], Array], ...]:
    """Triangle of a vector and vector of a triangle, each the transpose of the other."""
    rows, columns = (x.astype(np.int32) for x in np.tril_indices(size, offset))
    positions, is_entry = np.zeros((size, size), np.int32), np.zeros((size, size), bool)
    positions[rows, columns], is_entry[rows, columns] = np.arange(len(rows)), True

    def filled(vector: Array) -> Array:
        if len(rows) == 0:
            return jnp.zeros((size, size), vector.dtype)
        return jnp.where(is_entry, vector[positions], 0.0)

    def read(lower: Array) -> Array:
        return lower[rows, columns]

    return linear(filled, read), linear(read, filled)


def diagonal_of_vector(vector: Array) -> Array:
    """The entries of the diagonal of a triangle that is read row by row."""
    rows = range(triangle_dim(vector))
    return vector[jnp.array([i * (i + 3) // 2 for i in rows], dtype=int)]


def _map_diagonal(function: Callable[[Array], Array], lower: Array) -> Array:
    """The lower triangle with its diagonal mapped."""
    return jnp.tril(lower, -1) + diagonal_matrix(function(diagonal_of(lower)))


def triangle_dim(vector: Array, *, strict: bool = False) -> int:
    """The d whose lower triangle, strict or not, has as many entries as the vector."""
    length = vector.shape[-1]
    below = (math.isqrt(8 * length + 1) - 1) // 2  # rows of a triangle with its diagonal
    if vector_size(below) != length:
        count = "d(d-1)/2" if strict else "d(d+1)/2"
        raise ValueError(f"vector must have {count} entries for some d, got {length}.")
    return below + 1 if strict else below
