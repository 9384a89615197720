"""The sentences that users read: one function per error, raised at trace time.

Every sentence names the argument, what was expected and what came; shapes, never arrays.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array

from gaussjax._dtypes import common_dtype, own_dtype
from gaussjax._struct import fields_of, is_structure


def real_array(name: str, value: Any, dtype: Any = None) -> Array:
    """`value` as a floating array; bool and complex are refused.

    Values without a floating dtype (numbers, lists, integers) take `dtype`, or else JAX's default.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return value
    is_typed = own_dtype(value) is not None
    if isinstance(value, list | tuple):
        value = _array_of_list(name, value)
    kind = getattr(value, "dtype", None)
    if kind is None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a real array, got {type(value).__name__}.")
    elif not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise TypeError(f"{name} must be a real array, got dtype {kind}.")
    return jnp.asarray(value) if is_typed else jnp.asarray(value, float if dtype is None else dtype)


def real_arrays(**values: Any) -> list[Array]:
    """Floating arrays of one dtype, decided by the values that have one."""
    dtype = common_dtype(values.values())
    arrays = [real_array(name, x, dtype) for name, x in values.items()]
    return [x.astype(dtype) if x.dtype != dtype or x.weak_type else x for x in arrays]


def _array_of_list(name: str, value: Any) -> Any:
    holds_arrays = any(isinstance(x, jax.Array) for x in jax.tree.leaves(value))
    try:
        return jnp.asarray(value) if holds_arrays else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be a rectangular array, got a ragged list.") from error


def bool_array(name: str, value: Any) -> Array:
    """`value` as an array of booleans."""
    array = value if isinstance(value, jax.Array) else _array_of_list(name, value)
    if array.dtype != bool:
        raise TypeError(f"{name} must be an array of booleans, got dtype {array.dtype}.")
    return jnp.asarray(array)


def numbers(name: str, value: Any) -> np.ndarray:
    """One static number or several, as a NumPy array."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name} must be static, got a tracer.")
    array = np.asarray(_array_of_list(name, value))
    if not _is_real(array):
        raise TypeError(f"{name} must be a number, or a sequence of some, got {value!r}.")
    return array


def _is_real(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)


def number(name: str, value: Any) -> float:
    """One static number that is not negative."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name} must be a static number, got a tracer.")
    array = np.asarray(_array_of_list(name, value))
    if array.ndim or not _is_real(array):
        raise TypeError(f"{name} must be one number, got {value!r}.")
    if not array >= 0:
        raise ValueError(f"{name} must not be negative, got {value}.")
    return float(array)


def index_array(name: str, value: Any) -> Array:
    """`value` as an array of JAX's default integers, clipped to them: far out of range stays so."""
    array = value if isinstance(value, jax.Array) else _array_of_list(name, value)
    array = array.astype(int) if array.size == 0 and array.dtype != bool else array
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be an array of integers, got dtype {array.dtype}.")
    own, default = jnp.iinfo(array.dtype), jnp.iinfo(jnp.result_type(int))
    if own.max > default.max:
        array = array.clip(max(own.min, default.min), default.max)
    return jnp.asarray(array, dtype=int)


def real_structure(name: str, value: Any, dtype: Any = None) -> Any:
    """A structure with floating leaves; those without a dtype of their own get `dtype`."""
    return jax.tree.map(lambda x: real_array(name, x, dtype), value)


def instance(name: str, value: Any, *expected: type, order: str = "") -> Any:
    """Refuses what is not a Gaussian, or a covariance, where one is needed."""
    if not isinstance(value, expected):
        wanted = " or a ".join(t.__name__ for t in expected)
        hint = f": the arguments are ({order})" if order else ""
        raise TypeError(f"{name} must be a {wanted}, got {_kind(value)}{hint}.")
    consistent(value)
    return value


def wrong_arguments(name: str, order: str, error: TypeError) -> TypeError:
    """Python's message about arguments that do not fit, and the expected arguments."""
    return TypeError(f"{name}: {error}; the arguments are ({order}).")


def consistent(tree: Any) -> None:
    """Refuses a structure whose parts are not structures, or whose fields differ in an event axis.

    Structures of arrays of the same shapes are looked at once: eager calls come here each time.
    """
    leaves, treedef = jax.tree.flatten(tree)
    are_arrays = all(isinstance(x, jax.Array) for x in leaves)
    if not (are_arrays and _are_consistent(treedef, tuple(x.shape for x in leaves))):
        _check_fields(tree)


@functools.lru_cache(4096)
def _are_consistent(treedef: Any, shapes: tuple[tuple[Any, ...], ...]) -> bool:
    arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    try:
        _check_fields(jax.tree.unflatten(treedef, arrays))
    except Exception:  # whatever it is, the arrays themselves are looked at next
        return False
    return True


def _check_fields(tree: Any, stacked: int = 0) -> None:
    """The annotations of fields name axes; `stacked` are the further ones in front of them."""
    fields = [f for f in dataclasses.fields(tree) if "rank" in f.metadata]
    values = {f.name: getattr(tree, f.name) for f in fields}
    for field in fields:
        value, what = values[field.name], f"{field.name} of {type(tree).__name__}"
        if field.metadata["rank"] is None:
            _check_parts(what, value, stacked, field)
        else:
            _check_leaf(what, value, stacked, field)
    sizes = {"d": tree.dim}
    for field in fields:
        value, rank = values[field.name], field.metadata["rank"]
        what = f"{field.name} of {type(tree).__name__}"
        if rank is None and is_structure(value) and not field.metadata["stacked"]:
            _same_axis(what, f"dimension {value.dim}", value.dim, tree.dim)
        elif rank:
            shape = np.shape(value)
            axes = getattr(field.type, "dim_str", "").split()[-rank:]
            for axis, size in zip(axes, shape[-rank:], strict=False):
                _same_axis(what, f"shape {shape}", size, sizes.setdefault(axis, size))


def _check_leaf(what: str, value: Any, stacked: int, field: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not hasattr(value, "shape"):
        raise TypeError(f"{what} must be an array, got {type(value).__name__}.")
    shape, rank = np.shape(value), field.metadata["rank"]
    if len(shape) < rank + stacked:
        extra = " and one for the blocks" if stacked else ""
        raise ValueError(f"{what} must have at least {rank} axes{extra}, got shape {shape}.")


def _check_parts(what: str, value: Any, stacked: int, field: Any) -> None:
    parts = value if isinstance(value, tuple) else (value,)
    if not parts:
        raise ValueError(f"{what} must hold at least one structure, got none.")
    for part in parts:
        if not is_structure(part):
            raise TypeError(f"{what} must hold structures, got {_kind(part)}.")
        _check_fields(part, stacked + field.metadata["stacked"])


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
    """Static positions along an event axis of that size: integers, one integer, a slice, a mask.

    Negative integers count from the end.
    """
    if isinstance(value, slice):
        return tuple(range(dim)[value])
    if isinstance(value, list | tuple) and all(type(i) is int for i in value):
        return _positions(list(value), dim)
    try:
        array = np.asarray(value if np.size(value) else np.zeros(0, int))
    except ValueError as error:
        raise ValueError("indices must be a sequence of integers, got a ragged list.") from error
    if array.dtype == bool:
        if array.shape != (dim,):
            raise ValueError(f"A mask of indices must have shape ({dim},), got {array.shape}.")
        array = np.flatnonzero(array)
    if array.ndim > 1 or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"indices must be a sequence of integers, got {array.dtype} of shape {array.shape}."
        )
    return _positions(np.atleast_1d(array).tolist(), dim)


def _positions(found: list[int], dim: int) -> tuple[int, ...]:
    """From the start, in range and each once."""
    if not all(-dim <= i < dim for i in found):
        raise ValueError(f"indices must be below the dimension {dim}, got {found}.")
    positions = tuple(i % dim for i in found)
    if len(set(positions)) < len(positions):
        raise ValueError(f"indices must not repeat, got {found}.")
    return positions


def one_each(name: str, shape: tuple[int, ...], count: int) -> None:
    """Refuses values whose number differs from that of the indices."""
    if shape[-1] != count:
        raise ValueError(
            f"{name} must have {count} entries along the last axis, one for each index, got shape "
            f"{shape}."
        )


def broadcastable(shapes: dict[str, tuple[Any, ...]], *, between: bool = False) -> tuple[Any, ...]:
    """Broadcast batch shape, or the sentence that says which shapes do not.

    They belong to different arguments if `between` is true, else to parts of one.
    """
    try:
        return jnp.broadcast_shapes(*shapes.values())
    except ValueError as error:
        listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        sentence = f"Batch shapes must broadcast, got {listing}"
        if between:
            sentence += _cure(shapes)
        raise ValueError(f"{sentence}.") from error


def _cure(shapes: dict[str, tuple[Any, ...]]) -> str:
    """What the caller may have meant by batches that do not broadcast."""
    longest = max(shapes.values(), key=len)
    for name, shape in shapes.items():
        if shape and len(shape) < len(longest) and shape == longest[: len(shape)]:
            full = (*shape, *(1 for _ in longest[len(shape) :]))
            return f"; where {name} goes with the first axes, give it the batch shape {full}"
    (first, *_), (name, last) = shapes.values(), list(shapes.items())[-1]
    pairs = (*last, *(1 for _ in first))
    return f"; to take each with each, give {name} the batch shape {pairs}" if last else ""


def batch_shape(name: str, tree: Any) -> tuple[Any, ...]:
    """Broadcast batch shape of a structure's leaves."""
    return broadcastable(_batches(name, tree))


def unequal_batch_ranks(name: str, tree: Any) -> ValueError:
    """The sentence for leaves with unequal numbers of batch axes."""
    listing = ", ".join(f"{path} {shape}" for path, shape in _batches(name, tree).items())
    return ValueError(
        f"{name} must have one number of batch axes on every leaf, or axes of size one in excess, "
        f"got {listing}; broadcast_to gives every leaf the whole batch before vmap or scan."
    )


def _batches(name: str, tree: Any) -> dict[str, tuple[Any, ...]]:
    """The batch shape of every leaf, by its path."""
    return {name + path: np.shape(x)[: np.ndim(x) - r] for path, x, r in fields_of(tree)}


def unlike_structures(name: str, cov: Any, other: str, expected: Any) -> TypeError:
    """The sentence for a tangent of another structure."""
    wanted, got = type(expected).__name__, type(cov).__name__
    return TypeError(f"{name} must have the structure of {other}, {wanted}, got {got}.")


def no_natural_gradient(cov: Any) -> TypeError:
    """The sentence for structures without an inverse Fisher information."""
    return TypeError(
        f"natural_gradient has no closed form for {type(cov).__name__}, in which parameters are "
        "tied: use a diagonal, a root of Σ, a Cholesky factor of Σ or Σ⁻¹, a banded precision, a "
        "circulant, low rank with (d − r)² ≥ d + r, or blocks or Kronecker products of those."
    )


def one_covariance(member: str, cov: Any) -> None:
    """Raises the sentence for a member of a structure that was called on a batch."""
    shape = batch_shape(type(cov).__name__, cov)
    raise ValueError(
        f"{member} of {type(cov).__name__} takes one covariance, got batch shape {shape}: use "
        "gaussjax.logdet, solve, matvec, variance, covariance, …, which take batches, or jax.vmap."
    )


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


def batch_sizes(name: str, shape: Any, unknown: int | None = None) -> tuple[Any, ...]:
    """A batch shape: sizes, static or symbolic, that are not negative; `unknown` stands for one."""
    items = tuple(shape) if isinstance(shape, tuple | list | np.ndarray) else (shape,)
    for n in items:
        if isinstance(n, bool) or not (isinstance(n, int | np.integer) or is_symbolic_dim(n)):
            raise TypeError(f"{name} must be a tuple of integers, got {shape!r}.")
        if isinstance(n, int | np.integer) and n < 0 and n != unknown:
            raise ValueError(f"{name} must not be negative, got {items}.")
    return items


def random_key(key: Any, order: str) -> None:
    """Refuses anything but one PRNG key, typed or legacy (two uint32)."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    legacy = dtype == jnp.uint32 and key.ndim == 1
    if not (typed or legacy):
        raise TypeError(
            f"key must be a PRNG key, as from jax.random.key, got {_kind(key)}: the arguments are "
            f"({order})."
        )
    if typed and key.shape != ():
        raise ValueError(f"key must be a single PRNG key, got shape {key.shape}.")


def dimension(name: str, value: Any) -> int:
    """A static size: a non-negative integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}.")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}.")
    return int(value)


def form(name: str, value: Any, expected: type) -> Any:
    """Refuses what is no form, such as the class of one or its name."""
    if not isinstance(value, expected):
        got = value.__name__ if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be a form, such as FullForm(), got {got}.")
    return value


def no_form(name: str, cov: Any, known: Iterable[type]) -> TypeError:
    """The sentence for a structure that no vector stands for."""
    names = ", ".join(t.__name__ for t in known)
    return TypeError(
        f"{name} must have one of the structures {names} to become a vector, got "
        f"{type(cov).__name__}: as_cholesky({name}) has one."
    )


def all_true(sentence: str, valid: Array, cure: str = "") -> None:
    """Raises when `valid` is concrete and false somewhere; says where in the batch, and a cure."""
    if isinstance(valid, jax.core.Tracer):
        return
    wrong = np.argwhere(~np.asarray(valid))
    if len(wrong) == 0:
        return
    where = f" at batch index {tuple(int(i) for i in wrong[0])}" if valid.ndim else ""
    raise ValueError(f"{sentence}{where}{': ' if cure else ''}{cure}.")


def _kind(value: Any) -> str:
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return type(value).__name__
    return f"{value.dtype} of shape {value.shape}"
