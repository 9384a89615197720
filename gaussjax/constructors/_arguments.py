"""Static facts: arrays of one dtype, of sizes and batch shapes that fit."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gaussjax import _errors


def mean_and_matrix(mean: Any, name: str, matrix: Any) -> tuple[Array, Array]:
    mean, matrix = _errors.real_arrays(**{"mean": mean, name: matrix})
    _errors.square(name, matrix)
    return fitting(mean, name, matrix, 2), matrix


def mean_and_vector(mean: Any, name: str, vector: Any) -> tuple[Array, Array]:
    mean, vector = _errors.real_arrays(**{"mean": mean, name: vector})
    if vector.ndim == 0:
        _errors.rank_at_least("mean", mean, 1)
        return mean, vector
    return fitting(mean, name, vector, 1), vector


def mean_and_column(mean: Any, column: Any) -> tuple[Array, Array]:
    mean, column = _errors.real_arrays(mean=mean, column=column)
    _errors.rank_at_least("column", column, 1)
    return fitting(mean, "column", column, 1), column


def square(name: str, matrix: Any, dtype: Any) -> Array:
    matrix = _errors.real_array(name, matrix, dtype)
    _errors.square(name, matrix)
    return matrix


def fitting(mean: Array, name: str, factor: Array, rank: int) -> Array:
    """The mean, with the event size of the factor and a batch shape that broadcasts with it."""
    mean = of_size(mean, name, factor.shape[-1])
    batches = {"mean": mean.shape[:-1], name: factor.shape[: factor.ndim - rank]}
    _errors.broadcastable(batches, between=True)
    return mean


def of_size(mean: Array, whose: str, size: int) -> Array:
    """A mean with that many entries; a scalar stands for all of them."""
    if mean.ndim == 0:
        return jnp.broadcast_to(mean, (size,))
    _errors.same_dim("mean", mean.shape[-1], mean.shape, size, whose)
    return mean
