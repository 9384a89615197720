"""Several Gaussians as one, and the batch of one: stacked, side by side, taken out, reshaped."""

import math
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gaussjax import _checks
from gaussjax._lift import structure_argument
from gaussjax._struct import ranks
from gaussjax.covariances import BlockDiagonal
from gaussjax.gaussian import Gaussian


def broadcast_to(g: Gaussian, shape: tuple[int, ...]) -> Gaussian:
    """The same Gaussians with that batch shape on every leaf. A copy, unless `jit` fuses it

    For `vmap`, `scan` and `map` over a Gaussian some of whose parts the batch shares, and for a
    carry that has to have one shape from start to end.

    Raises:
        ValueError: the batch of g does not broadcast to `shape`.

    >>> from gaussjax import from_scale
    >>> broadcast_to(from_scale(jnp.zeros((5, 2)), 3.0), (5,)).cov
    Isotropic(scale=float32[5], dim=2)
    """
    g, shape = structure_argument("g", g, Gaussian), _checks.batch_sizes("shape", shape)
    own = g.batch_shape
    if len(own) > len(shape) or any(
        n not in (1, m) for n, m in zip(reversed(own), reversed(shape), strict=False)
    ):
        raise ValueError(f"g must have a batch shape that broadcasts to {shape}, got {own}.")
    return _on_batch(g, lambda x, rank: jnp.broadcast_to(x, shape + x.shape[x.ndim - rank :]))


def reshape(g: Gaussian, shape: tuple[int, ...]) -> Gaussian:
    """The same Gaussians in a batch of another shape; one size may be −1. What is shared stays so

    Raises:
        ValueError: the batch has not as many elements.

    >>> from gaussjax import batch_shape, from_scale
    >>> batch_shape(reshape(from_scale(jnp.zeros((6, 2)), 1.0), (3, -1)))
    (3, 2)
    """
    g = structure_argument("g", g, Gaussian)
    batch, shape = g.batch_shape, _checks.batch_sizes("shape", shape, unknown=-1)
    count, known = math.prod(batch), math.prod(n for n in shape if n != -1)
    if -1 in shape and known and count % known == 0:
        shape = tuple(count // known if n == -1 else n for n in shape)
    if shape.count(-1) or math.prod(shape) != count:
        raise ValueError(f"shape must have {count} elements like batch shape {batch}, got {shape}.")

    def reshaped(x: Array, rank: int) -> Array:
        own, event = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
        if own != batch and all(n == 1 for n in own):
            return x.reshape(*(1 for _ in shape), *event)
        return jnp.broadcast_to(x, batch + event).reshape(shape + event)

    return _on_batch(g, reshaped)


def concatenate(gs: Sequence[Gaussian]) -> Gaussian:
    """Law of independent Gaussians side by side: dimensions add, the covariance is their blocks.

    Batch shapes broadcast.

    Raises:
        ValueError: there is none, or their batch shapes do not broadcast.

    >>> from gaussjax import standard, variance
    >>> variance(concatenate([standard(1), standard(2)]))
    Array([1., 1., 1.], dtype=float32)
    """
    gs = _several("concatenate", gs)
    batches = {f"gs[{i}]": g.batch_shape for i, g in enumerate(gs)}
    batch = _checks.broadcastable(batches, between=True)
    means = [jnp.broadcast_to(g.mean, (*batch, g.dim)) for g in gs]
    return Gaussian(jnp.concatenate(means, axis=-1), BlockDiagonal(tuple(g.cov for g in gs)))


def stack(gs: Sequence[Gaussian]) -> Gaussian:
    """Gaussians of one structure as a batch, along a new first axis. A copy

    Raises:
        ValueError: there is none, or their structures or shapes differ.

    >>> from gaussjax import batch_shape, standard
    >>> batch_shape(stack([standard(2), standard(2)]))
    (2,)
    """
    gs = [broadcast_to(g, g.batch_shape) for g in _several("stack", gs)]
    if len({(jax.tree.structure(g), *map(jnp.shape, jax.tree.leaves(g))) for g in gs}) > 1:
        raise ValueError("gs must have equal structures and shapes.")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *gs)


def take(g: Gaussian, index: Any) -> Gaussian:
    """Elements of a batch: g as an array of Gaussians, indexed as NumPy indexes arrays.

    `index` is an integer, a slice, an ellipsis, an array of integers, a static mask, or a tuple of
    these for several axes. Integers and slices keep shared what the batch shares. In an array an
    index out of range gives NaN.

    Raises:
        ValueError: g has fewer batch axes than indices, or an integer is out of range.

    >>> from gaussjax import from_scale
    >>> g = from_scale([[0.0], [5.0]], [[1.0], [2.0]])
    >>> take(g, 1).mean
    Array([5.], dtype=float32)
    >>> take(g, (slice(None), None)).batch_shape
    (2, 1)
    """
    g = structure_argument("g", g, Gaussian)
    batch = g.batch_shape
    items = _whole_index(index if isinstance(index, tuple) else (index,), batch)
    if any(not isinstance(i, int | slice | None) for i in items):
        return _gathered(g, items, batch)
    for axis, (i, n) in enumerate(zip((i for i in items if i is not None), batch, strict=True)):
        if isinstance(i, int) and not -n <= i < n:
            raise ValueError(f"index must be below the batch size {n} on axis {axis}, got {i}.")

    def taken(x: Array, rank: int) -> Array:
        sizes = iter(x.shape[: x.ndim - rank])
        return x[tuple(None if i is None else _within(i, next(sizes)) for i in items)]

    return _on_batch(g, taken)


def _whole_index(items: tuple[Any, ...], batch: tuple[int, ...]) -> list[Any]:
    """One item for each batch axis, and None for new ones."""
    items = tuple(int(i) if _is_integer(i) else i for i in items)
    masked = [np.ndim(i) for i in items if _is_mask(i)]
    missing = len(batch) - sum(masked) + len(masked)
    missing -= sum(i is not None and not isinstance(i, EllipsisType) for i in items)
    if missing < 0:
        raise ValueError(f"g must have a batch axis for each index, got batch shape {batch}.")
    where = [k for k, i in enumerate(items) if isinstance(i, EllipsisType)] or [len(items)]
    return [*items[: where[0]], *[slice(None)] * missing, *items[where[0] + 1 :]]


def _is_integer(i: Any) -> bool:
    return isinstance(i, int | np.integer) and not isinstance(i, bool | np.bool_)


def _is_mask(i: Any) -> bool:
    return not isinstance(i, jax.Array) and np.asarray(i).dtype == bool


def _within(item: int | slice, size: int) -> int | slice:
    """The item for a leaf that the axis may be shared by."""
    if size != 1:
        return item
    return 0 if isinstance(item, int) else slice(None)


def _gathered(g: Gaussian, items: Sequence[Any], batch: tuple[int, ...]) -> Gaussian:
    """By the position of every element that is asked for, −1 where there is none."""
    index = tuple(
        i if isinstance(i, int | slice | None) or _is_mask(i) else _checks.index_array("index", i)
        for i in items
    )
    positions = jnp.arange(math.prod(batch)).reshape(batch)
    found = positions.at[index].get(mode="fill", fill_value=-1)
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


def _several(name: str, gs: Sequence[Gaussian]) -> list[Gaussian]:
    if not isinstance(gs, list | tuple) or len(gs) == 0:
        raise ValueError(
            f"{name} needs a sequence of one or more Gaussians, got {type(gs).__name__}."
        )
    return [structure_argument(f"gs[{i}]", g, Gaussian) for i, g in enumerate(gs)]
