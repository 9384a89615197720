"""Several Gaussians as one: side by side, stacked into a batch, taken out of it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gaussjax import _checks
from gaussjax._struct import ranks
from gaussjax.covariances import BlockDiagonal
from gaussjax.gaussian import Gaussian, batch_shape
from gaussjax.gaussian import mean as mean_of


def concatenate(gs: Sequence[Gaussian], /) -> Gaussian:
    """Law of independent Gaussians side by side: dimensions add, the covariance is their blocks.

    Raises:
        ValueError: there is none, or their batch shapes differ.

    >>> from gaussjax import standard, variance
    >>> variance(concatenate([standard(1), standard(2)]))
    Array([1., 1., 1.], dtype=float32)
    """
    means = _means("concatenate", gs)
    shapes = {m.shape[:-1] for m in means}
    if len(shapes) > 1:
        raise ValueError(f"gs must have equal batch shapes, got {sorted(shapes)}.")
    return Gaussian(jnp.concatenate(means, axis=-1), BlockDiagonal(tuple(g.cov for g in gs)))


def stack(gs: Sequence[Gaussian], /) -> Gaussian:
    """Gaussians of one structure as a batch, along a new first axis. A copy

    Raises:
        ValueError: there is none, or their structures or shapes differ.

    >>> from gaussjax import batch_shape, standard
    >>> batch_shape(stack([standard(2), standard(2)]))
    (2,)
    """
    _means("stack", gs)
    if len({(jax.tree.structure(g), *map(jnp.shape, jax.tree.leaves(g))) for g in gs}) > 1:
        raise ValueError("gs must have equal structures and shapes.")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_whole, gs))


def take(g: Gaussian, index: Any, /) -> Gaussian:
    """Elements of a batch: `index` (an integer, slice or array of integers) along its first axis.

    In an array an index out of range gives NaN.

    Raises:
        ValueError: g has no batch axis, or the integer is out of range.

    >>> from gaussjax import from_scale
    >>> take(from_scale([[0.0], [5.0]], [[1.0], [2.0]]), 1).mean
    Array([5.], dtype=float32)
    """
    batch = batch_shape(_checks.instance("g", g, Gaussian))
    if not batch:
        raise ValueError("g must have a batch axis to take from, got batch shape ().")
    if isinstance(index, int | np.integer) and not -batch[0] <= index < batch[0]:
        raise ValueError(f"index must be below the batch size {batch[0]}, got {index}.")
    if isinstance(index, slice):
        return jax.tree.map(lambda leaf: leaf[index], _whole(g))
    index = _checks.index_array("index", index)
    return jax.tree.map(lambda leaf: leaf.at[index].get(mode="fill", fill_value=jnp.nan), _whole(g))


def _whole(g: Gaussian) -> Gaussian:
    """With the batch axes of all of it on every leaf."""
    batch, (leaves, treedef) = batch_shape(g), jax.tree.flatten(g)
    wide = [
        jnp.broadcast_to(leaf, batch + jnp.shape(leaf)[jnp.ndim(leaf) - rank :])
        for leaf, rank in zip(leaves, ranks(g), strict=True)
    ]
    return jax.tree.unflatten(treedef, wide)


def _means(name: str, gs: Sequence[Gaussian]) -> list[Array]:
    """Means of a sequence of Gaussians, with their whole batch shapes."""
    if not isinstance(gs, list | tuple) or len(gs) == 0:
        raise ValueError(
            f"{name} needs a sequence of one or more Gaussians, got {type(gs).__name__}."
        )
    return [mean_of(_checks.instance(f"gs[{i}]", g, Gaussian)) for i, g in enumerate(gs)]
