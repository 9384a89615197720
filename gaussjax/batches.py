"""Batches of Gaussians: stack, index, reshape and broadcast them, or join their dimensions."""

import math
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from gaussjax import _errors
from gaussjax._lift import structure_argument
from gaussjax._sharding import batch_spec, resharded
from gaussjax._struct import ranks
from gaussjax.covariances import BlockDiagonal
from gaussjax.gaussian import Gaussian


def broadcast_to(g: Gaussian, shape: tuple[int, ...]) -> Gaussian:
    """The same Gaussians with that batch shape on every leaf. A copy, unless `jit` fuses it

    For `vmap`, `scan` and `map` over a Gaussian whose batch shares some parts, and for carries,
    whose shape must not change.

    Raises:
        ValueError: the batch of g does not broadcast to `shape`.

    >>> from gaussjax import from_scale
    >>> broadcast_to(from_scale(jnp.zeros((5, 2)), 3.0), (5,)).cov
    Isotropic(scale=float32[5], dim=2)
    """
    g, shape = structure_argument("g", g, Gaussian), _errors.batch_sizes("shape", shape)
    own = g.batch_shape
    if len(own) > len(shape) or any(
        n not in (1, m) for n, m in zip(reversed(own), reversed(shape), strict=False)
    ):
        raise ValueError(f"g must have a batch shape that broadcasts to {shape}, got {own}.")
    return _broadcast([g], shape)[0]


def reshape(g: Gaussian, shape: tuple[int, ...]) -> Gaussian:
    """The same Gaussians in a batch of another shape; one size may be −1. Shared parts stay shared

    Raises:
        ValueError: the batch has a different number of elements.

    >>> from gaussjax import batch_shape, from_scale
    >>> batch_shape(reshape(from_scale(jnp.zeros((6, 2)), 1.0), (3, -1)))
    (3, 2)
    """
    g = structure_argument("g", g, Gaussian)
    batch, shape = g.batch_shape, _errors.batch_sizes("shape", shape, unknown=-1)
    count, known = math.prod(batch), math.prod(n for n in shape if n != -1)
    whole = shape
    if shape.count(-1) == 1 and known and count % known == 0:
        whole = tuple(count // known if n == -1 else n for n in shape)
    if -1 in whole or math.prod(whole) != count:
        raise ValueError(f"shape must have {count} elements like batch shape {batch}, got {shape}.")

    def reshaped(x: Array, rank: int) -> Array:
        own, event = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
        if own != batch and all(n == 1 for n in own):
            return x.reshape(*(1 for _ in whole), *event)
        return jnp.broadcast_to(x, batch + event).reshape(whole + event)

    return _on_batch(g, reshaped)


def concatenate(gs: Sequence[Gaussian]) -> Gaussian:
    """Joint law of independent Gaussians: dimensions add, the covariance is block diagonal.

    Batch shapes broadcast.

    Raises:
        ValueError: there is none, or their batch shapes do not broadcast.

    >>> from gaussjax import standard, variance
    >>> variance(concatenate([standard(1), standard(2)]))
    Array([1., 1., 1.], dtype=float32)
    """
    gs = _several("concatenate", gs)
    batches = {f"gs[{i}]": g.batch_shape for i, g in enumerate(gs)}
    batch = _errors.broadcastable(batches, between=True)
    means = [g.mean for g in _broadcast(gs, batch, covariances=False)]
    return Gaussian(jnp.concatenate(means, axis=-1), BlockDiagonal(tuple(g.cov for g in gs)))


def stack(gs: Sequence[Gaussian]) -> Gaussian:
    """Gaussians of one structure as a batch, along a new first axis. A copy

    Raises:
        ValueError: there is none, or their structures or shapes differ.

    >>> from gaussjax import batch_shape, standard
    >>> batch_shape(stack([standard(2), standard(2)]))
    (2,)
    """
    gs = _several("stack", gs)
    batch, *others = (g.batch_shape for g in gs)
    if any(other != batch for other in others) or len({_event_shapes(g) for g in gs}) > 1:
        raise ValueError("gs must have equal structures and shapes.")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *_broadcast(gs, batch))


def _event_shapes(g: Gaussian) -> tuple[Any, ...]:
    leaves = zip(jax.tree.leaves(g), ranks(g), strict=True)
    return jax.tree.structure(g), *(x.shape[x.ndim - rank :] for x, rank in leaves)


def take(g: Gaussian, index: Any) -> Gaussian:
    """Elements of a batch: g as an array of Gaussians, indexed as NumPy indexes arrays.

    `index` is an integer, a slice, an ellipsis, an array of integers, a static mask, or a tuple of
    these for several axes. Integers and slices keep shared parts shared. An index in an array that
    is out of range gives NaN.

    Raises:
        TypeError: an index is none of these.
        ValueError: g has fewer batch axes than indices, an integer is out of range, or g is empty
            and asked for elements at the positions in an array.

    >>> from gaussjax import from_scale
    >>> g = from_scale([[0.0], [5.0]], [[1.0], [2.0]])
    >>> take(g, 1).mean
    Array([5.], dtype=float32)
    >>> take(g, (slice(None), None)).batch_shape
    (2, 1)
    """
    g = structure_argument("g", g, Gaussian)
    batch = g.batch_shape
    items = _one_each(index if isinstance(index, tuple) else (index,), batch)
    axis = 0
    for i in items:
        if isinstance(i, int) and not -batch[axis] <= i < batch[axis]:
            raise ValueError(
                f"index must be below the batch size {batch[axis]} on axis {axis}, got {i}."
            )
        axis += _consumed(i)
    if any(not isinstance(i, int | slice | None) for i in items):
        return _gathered(g, items, batch)

    def taken(x: Array, rank: int) -> Array:
        sizes = zip(x.shape[: x.ndim - rank], batch, strict=True)
        return x[tuple(None if i is None else _within(i, *next(sizes)) for i in items)]

    return _on_batch(g, taken)


def _one_each(items: tuple[Any, ...], batch: tuple[int, ...]) -> list[Any]:
    """One item for each batch axis (a mask takes several), and None for new ones."""
    items = tuple(map(_item, items))
    missing = len(batch) - sum(map(_consumed, items))
    if missing < 0 or sum(i is ... for i in items) > 1:
        raise ValueError(
            f"index must have at most one item for each batch axis and one ellipsis, got "
            f"{len(items)} items for batch shape {batch}."
        )
    where = next((k for k, i in enumerate(items) if i is ...), len(items))
    return [*items[:where], *[slice(None)] * missing, *items[where + 1 :]]


def _item(i: Any) -> Any:
    """An integer, a slice, an ellipsis, None, a static mask, or an array of JAX's integers."""
    if i is None or isinstance(i, slice | EllipsisType):
        return i
    if isinstance(i, int | np.integer) and not isinstance(i, bool):
        return int(i)
    if not isinstance(i, jax.Array):
        mask = np.asarray(i) if isinstance(i, np.ndarray) else None
        mask = np.asarray(i) if _is_list_of_booleans(i) else mask
        if mask is not None and mask.dtype == bool and mask.ndim:
            return mask
    return _errors.index_array("index", i)


def _is_list_of_booleans(i: Any) -> bool:
    items = jax.tree.leaves(i) if isinstance(i, list) else []
    return bool(items) and all(isinstance(x, bool | np.bool_) for x in items)


def _consumed(item: Any) -> int:
    """Batch axes that an item takes."""
    if item is None or item is ...:
        return 0
    return item.ndim if isinstance(item, np.ndarray) else 1


def _within(item: int | slice, size: int, whole: int) -> int | slice:
    """The item for a leaf that may share the axis, where the batch has `whole` elements."""
    if size == whole:
        return item
    return 0 if isinstance(item, int) else slice(None)


def _gathered(g: Gaussian, items: Sequence[Any], batch: tuple[int, ...]) -> Gaussian:
    """By the position of every requested element, −1 where there is none."""
    if 0 in batch:
        raise ValueError(f"g must not be empty to take elements of it, got batch shape {batch}.")
    positions = jnp.arange(math.prod(batch)).reshape(batch)
    found = positions.at[tuple(items)].get(mode="fill", fill_value=-1)
    axes = jnp.unravel_index(jnp.maximum(found, 0), batch)

    def gathered(x: Array, rank: int) -> Array:
        own = x.shape[: x.ndim - rank]
        values = x[tuple(0 * i if n == 1 else i for i, n in zip(axes, own, strict=True))]
        return jnp.where(jnp.expand_dims(found >= 0, tuple(range(-rank, 0))), values, jnp.nan)

    return _on_batch(g, gathered)


def _on_batch(g: Gaussian, function: Callable[[Array, int], Array]) -> Gaussian:
    """`function(leaf, event rank)` of every leaf."""
    leaves, treedef = jax.tree.flatten(g)
    return jax.tree.unflatten(treedef, list(map(function, leaves, ranks(g))))


def _broadcast(
    gs: Sequence[Gaussian], batch: tuple[int, ...], *, covariances: bool = True
) -> list[Gaussian]:
    """Leaves with the whole batch, all sharded alike where axes of the mesh are explicit."""
    every = [(x, rank) for g in gs for x, rank in zip(jax.tree.leaves(g), ranks(g), strict=True)]
    axes = batch_spec(*map(list, zip(*every, strict=True)))
    spec = PartitionSpec(*[None] * (len(batch) - len(axes)), *axes)

    def whole(x: Array, rank: int) -> Array:
        return resharded(jnp.broadcast_to(x, batch + x.shape[x.ndim - rank :]), spec)

    if covariances:
        return [_on_batch(g, whole) for g in gs]
    return [Gaussian(whole(g.mean, 1), g.cov) for g in gs]


def _several(name: str, gs: Sequence[Gaussian]) -> list[Gaussian]:
    if not isinstance(gs, list | tuple) or len(gs) == 0:
        raise ValueError(
            f"{name} needs a sequence of one or more Gaussians, got {type(gs).__name__}."
        )
    return [structure_argument(f"gs[{i}]", g, Gaussian) for i, g in enumerate(gs)]
