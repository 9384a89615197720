"""The sentences that users read: one function per error, raised at trace time.

Every sentence names the argument, what was expected and what came; shapes, never arrays.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gaussjax._struct import is_structure


def real_array(name: str, value: Any) -> Array:
    """`value` as a floating array; integers are promoted, complex and bool refused."""
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a rectangular array, got a ragged list.") from error
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a real array, got {type(value).__name__}.")
        return jnp.asarray(value, dtype=float)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(value)
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(value).astype(float)
    raise TypeError(f"{name} must be a real array, got dtype {dtype}.")


def bool_array(name: str, value: Any) -> Array:
    """`value` as an array of booleans."""
    array = jnp.asarray(value)
    if array.dtype != bool:
        raise TypeError(f"{name} must be an array of booleans, got dtype {array.dtype}.")
    return array


def index_array(name: str, value: Any) -> Array:
    """`value` as an array of integers."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be an array of integers, got dtype {array.dtype}.")
    return array


def instance(name: str, value: Any, expected: type) -> Any:
    """Refuses what is not a Gaussian, or a covariance, where one is needed."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be a {expected.__name__}, got {type(value).__name__}.")
    consistent(value)
    return value


def consistent(tree: Any, stacked: int = 0) -> None:
    """Refuses a structure whose parts are no structures, or whose fields differ in an event axis.

    The annotations of its fields name the axes; `stacked` are the further ones in front of them.
    """
    fields = [f for f in dataclasses.fields(tree) if "rank" in f.metadata]
    values = {f.name: getattr(tree, f.name) for f in fields}
    for field in fields:
        if field.metadata["rank"] is None:
            value = values[field.name]
            _parts_of(f"{field.name} of {type(tree).__name__}", value, stacked, field)
    sizes = {"d": tree.dim}
    for field in fields:
        value, rank = values[field.name], field.metadata["rank"]
        what = f"{field.name} of {type(tree).__name__}"
        if rank is None and is_structure(value) and not field.metadata["stacked"]:
            _same_axis(what, f"dimension {value.dim}", value.dim, tree.dim)
        elif rank:
            shape = np.shape(value)
            if len(shape) < rank + stacked:
                raise ValueError(f"{what} must have at least {rank} axes, got shape {shape}.")
            axes = getattr(field.type, "dim_str", "").split()[-rank:]
            for axis, size in zip(axes, shape[-rank:], strict=False):
                _same_axis(what, f"shape {shape}", size, sizes.setdefault(axis, size))


def _parts_of(what: str, value: Any, stacked: int, field: Any) -> None:
    parts = value if isinstance(value, tuple) else (value,)
    if not parts:
        raise ValueError(f"{what} must hold at least one structure, got none.")
    for part in parts:
        if not is_structure(part):
            raise TypeError(f"{what} must hold structures, got {type(part).__name__}.")
        consistent(part, stacked + field.metadata["stacked"])


def _same_axis(what: str, got: str, size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"{what} must have size {expected} like the rest of it, got {got}.")


def rank_at_least(name: str, value: Array, rank: int) -> None:
    """Refuses an array with fewer axes than one event needs."""
    if value.ndim < rank:
        raise ValueError(f"{name} must have at least {rank} axes, got shape {value.shape}.")


def not_empty(name: str, vector: Array) -> None:
    """Refuses a vector without entries."""
    rank_at_least(name, vector, 1)
    if vector.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one entry, got shape {vector.shape}.")


def square(name: str, matrix: Array) -> None:
    """Refuses a matrix whose last two axes differ."""
    rank_at_least(name, matrix, 2)
    if matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name} must be square in its last two axes, got shape {matrix.shape}.")


def same_dim(name: str, size: int, shape: tuple[int, ...], expected: int, whose: str) -> None:
    """Refuses an event size that differs: event axes never broadcast."""
    if size != expected:
        raise ValueError(
            f"{name} must have {expected} entries along its last axis, the dimension of {whose}, "
            f"got shape {shape}."
        )


def same_rows(name: str, shape: tuple[int, ...], expected: int, whose: str) -> None:
    """Refuses a matrix with another number of rows."""
    if shape[-2] != expected:
        raise ValueError(
            f"{name} must have {expected} rows, the dimension of {whose}, got shape {shape}."
        )


def indices(value: Any, dim: int) -> tuple[int, ...]:
    """Static positions along an event axis of that size; negative ones count from the end."""
    array = np.asarray(value if np.size(value) else np.zeros(0, int))
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"indices must be a sequence of integers, got {array.dtype} of shape {array.shape}."
        )
    if np.any((array < -dim) | (array >= dim)):
        raise ValueError(f"indices must be below the dimension {dim}, got {array.tolist()}.")
    array = np.where(array < 0, array + dim, array)
    if len(np.unique(array)) < len(array):
        raise ValueError(f"indices must not repeat, got {array.tolist()}.")
    return tuple(array.tolist())


def one_each(name: str, shape: tuple[int, ...], count: int) -> None:
    """Refuses values that are not one for each index."""
    if shape[-1] != count:
        raise ValueError(
            f"{name} must have {count} entries along the last axis, one for each index, got shape "
            f"{shape}."
        )


def broadcastable(names: Sequence[str], shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Broadcast batch shape, or the sentence that says which shapes do not."""
    try:
        return jnp.broadcast_shapes(*shapes)
    except ValueError as error:
        listing = ", ".join(f"{n} {s}" for n, s in zip(names, shapes, strict=True))
        raise ValueError(f"Batch shapes must broadcast, got {listing}.") from error


def sample_shape(shape: Any) -> tuple[int, ...]:
    """A sample shape as a tuple of non-negative integers."""
    items = (shape,) if isinstance(shape, int | np.integer) else shape
    if not isinstance(items, tuple | list) or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) for n in items
    ):
        raise TypeError(f"shape must be a tuple of integers, got {shape!r}.")
    if any(n < 0 for n in items):
        raise ValueError(f"shape must not be negative, got {tuple(items)}.")
    return tuple(int(n) for n in items)


def random_key(key: Any) -> None:
    """Refuses what is not one PRNG key: a typed key, or a legacy one of two uint32."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    legacy = dtype == jnp.uint32 and key.ndim == 1
    if not (typed or legacy):
        raise TypeError(f"key must be a PRNG key, as from jax.random.key, got {_kind(key)}.")
    if typed and key.shape != ():
        raise ValueError(f"key must be a single PRNG key, got shape {key.shape}.")


def dimension(name: str, value: Any) -> int:
    """A static size: a non-negative integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}.")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}.")
    return int(value)


def all_true(sentence: str, valid: Array) -> None:
    """Raises when `valid` is concrete and false somewhere; says where in the batch."""
    if isinstance(valid, jax.core.Tracer):
        return
    wrong = np.argwhere(~np.asarray(valid))
    if len(wrong) == 0:
        return
    where = f" at batch index {tuple(int(i) for i in wrong[0])}" if valid.ndim else ""
    raise ValueError(f"{sentence}{where}.")


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{dtype} of shape {value.shape}"
