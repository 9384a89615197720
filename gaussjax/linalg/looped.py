"""Functions of matrices that a CPU computes for one matrix of a batch at a time.

Two reasons. What a larger matrix needs in between stays in the cache: a batch that takes each step
for all matrices before the next writes and reads its memory again and again. And jaxlib up to
0.10.2 splits a batch of LAPACK calls over the thread pool that it runs on and blocks in it, so two
batched calls at once can wait for each other for ever on a machine with few cores; a single matrix
is never split. Other devices compute the batch as one.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Function = Callable[..., Any]


def one_at_a_time(*ranks: int) -> Callable[[Function], Function]:
    """Decorator of a function of arrays with these event ranks; `vmap` may add leading axes.

    What it decorates has no derivative: the callers define it in closed form.
    """

    def decorate(function: Function) -> Function:
        none = (False,) * len(ranks)
        return functools.wraps(function)(_over_axes(function, ranks, 0, none))

    return decorate


@functools.cache
def _over_axes(
    function: Function, ranks: tuple[int, ...], count: int, has: tuple[bool, ...]
) -> Function:
    """`function` over `count` leading axes of the arrays that have them; the others are shared."""

    def looped(*arrays: Array) -> Any:
        own = [x for x, mine in zip(arrays, has, strict=True) if mine]
        batch = own[0].shape[:count]
        flat = [x.reshape(math.prod(batch), *x.shape[count:]) for x in own]

        def one(matrices: list[Array]) -> Any:
            rest = iter(matrices)
            merged = [next(rest) if mine else x for x, mine in zip(arrays, has, strict=True)]
            return function(*merged)

        out = lax.map(one, flat)
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), out)

    def batched(*arrays: Array) -> Any:
        lifted = function
        for _ in range(count):
            lifted = jax.vmap(lifted, in_axes=tuple(0 if mine else None for mine in has))
        return lifted(*arrays)

    @jax.custom_batching.custom_vmap
    def mapped(*arrays: Array) -> Any:
        if count == 0:
            return function(*arrays)
        return lax.platform_dependent(*arrays, cpu=looped, default=batched)

    @mapped.def_vmap
    def _(size: int, new: list[bool], *arrays: Array) -> tuple[Any, Any]:
        wider = tuple(old or added for old, added in zip(has, new, strict=True))
        batch = _batch_of(arrays, ranks, count, has)
        wide = [
            _with_axes(x, rank, (size, *batch), added) if mine else x
            for x, rank, mine, added in zip(arrays, ranks, wider, new, strict=True)
        ]
        out = _over_axes(function, ranks, count + 1, wider)(*wide)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _batch_of(
    arrays: Sequence[Array], ranks: Sequence[int], count: int, has: Sequence[bool]
) -> tuple[int, ...]:
    """The leading axes that were mapped before."""
    shapes = [
        x.shape[x.ndim - rank - count : x.ndim - rank]
        for x, rank, mine in zip(arrays, ranks, has, strict=True)
        if mine
    ]
    return shapes[0] if shapes else ()


def _with_axes(x: Array, rank: int, batch: tuple[int, ...], added: bool) -> Array:
    """`x` with all of `batch` in front: it may lack the first axis, or all but the first."""
    event = x.shape[x.ndim - rank :]
    if added and x.ndim == rank + 1:
        x = x.reshape(batch[0], *(1 for _ in batch[1:]), *event)
    return jnp.broadcast_to(x, (*batch, *event))
