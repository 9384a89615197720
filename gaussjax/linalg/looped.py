"""Functions of matrices that a CPU computes for a few matrices of a batch at a time.

Two reasons. What a larger matrix needs in between stays in the cache: a batch that takes each step
for all matrices before the next writes and reads its memory again and again. And jaxlib up to
0.10.2 splits a batch of LAPACK calls over the thread pool that it runs on and blocks in it, so two
batched calls at once can wait for each other for ever on a machine with few cores; a single matrix
is never split. Other devices compute the batch as one. A batch that is sharded stays so: each
device loops over its own part.
"""

import functools
import math
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from gaussjax.linalg.sharded_batch import split_over_devices

Function = Callable[..., Any]

TILE = 128  # small matrices of a batch whose intermediate results fit the cache of a CPU
TINY = 4  # largest matrix that compiles soon enough, written out, to be so alone too


def looped(
    *ranks: int, to: tuple[int, ...], tile: int | None = 1, alone: Function | None = None
) -> Callable[[Function], Function]:
    """Decorator of a function from arrays of event ranks `ranks` to a tuple or array of `to`.

    `vmap` may add leading axes, which on CPUs are a loop over `tile` of their elements at a time;
    None is all of them. What is written out for many matrices compiles for long: `alone` takes its
    place where there is one, larger than `TINY`. It has no derivative: the callers define it in
    closed form.
    """

    def decorate(function: Function) -> Function:
        # Traced once: not for each platform, loop and derivative around it.
        kernel = _Kernel(jax.jit(function), jax.jit(alone or function), ranks, to, tile)
        return functools.wraps(function)(_over_axes(kernel, 0, (False,) * len(ranks)))

    return decorate


class _Kernel(NamedTuple):
    """The arguments of `looped`."""

    function: Function
    alone: Function
    ranks: tuple[int, ...]
    to: tuple[int, ...]
    tile: int | None


@functools.cache
def _over_axes(kernel: _Kernel, count: int, has: tuple[bool, ...]) -> Function:
    """The kernel over `count` leading axes of the arrays that have them; the others are shared."""
    function, alone, ranks, to, tile = kernel

    def on_cpu(*arrays: Array) -> Any:
        own = [x for x, mine in zip(arrays, has, strict=True) if mine]
        batch = own[0].shape[:count]
        flat = [x.reshape(math.prod(batch), *x.shape[count:]) for x in own]

        def one(matrices: list[Array]) -> Any:
            rest = iter(matrices)
            merged = [next(rest) if mine else x for x, mine in zip(arrays, has, strict=True)]
            return function(*merged)

        out = _by_tiles(jax.vmap(one), tile, flat) if tile and tile > 1 else lax.map(one, flat)
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), out)

    def batched(*arrays: Array) -> Any:
        lifted = function
        for _ in range(count):
            lifted = jax.vmap(lifted, in_axes=tuple(0 if mine else None for mine in has))
        return lifted(*arrays)

    @jax.custom_batching.custom_vmap
    def mapped(*arrays: Array) -> Any:
        if count == 0:
            is_tiny = all(n <= TINY for x in arrays for n in x.shape)
            return (function if is_tiny else alone)(*arrays)
        if tile is None:
            return batched(*arrays)
        return split_over_devices(on_cpu, *_rule(ranks, has, to), elsewhere=batched)(*arrays)

    @mapped.def_vmap
    def _(size: int, new: list[bool], *arrays: Array) -> tuple[Any, Any]:
        wider = tuple(old or added for old, added in zip(has, new, strict=True))
        if not any(mine and rank > 1 for mine, rank in zip(wider, ranks, strict=True)):
            axes = tuple(0 if mine else None for mine in wider)  # vectors are columns to solves
            out = jax.vmap(function, in_axes=axes)(*arrays)
            return out, jax.tree.map(lambda _: True, out)
        shapes = [
            x.shape[x.ndim - rank - count : x.ndim - rank]
            for x, rank, old in zip(arrays, ranks, has, strict=True)
            if old
        ]
        batch = (size, *(shapes[0] if shapes else ()))
        wide = [
            _with_axes(x, rank, batch, lacks_others=added and not old) if mine else x
            for x, rank, mine, added, old in zip(arrays, ranks, wider, new, has, strict=True)
        ]
        out = _over_axes(kernel, count + 1, wider)(*wide)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _by_tiles(function: Callable[[list[Array]], Any], tile: int, batch: list[Array]) -> Any:
    """A loop over tiles; the last one ends with the batch, and so may begin within another."""
    size = batch[0].shape[0]
    if is_symbolic_dim(size) or size <= tile:  # of an export: how many there are is not known yet
        return function(batch)

    def step(i: Array, out: Any) -> Any:
        start = jnp.minimum(i * tile, size - tile)
        part = function([lax.dynamic_slice_in_dim(x, start, tile) for x in batch])
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 0), out, part)

    # A constant would be no part of the batch, and of another type in a `shard_map` around this.
    like = functools.reduce(jnp.add, [x[(0,) * x.ndim] for x in batch])
    shapes = jax.eval_shape(function, batch)
    empty = jax.tree.map(lambda x: jnp.broadcast_to(like.astype(x.dtype), x.shape), shapes)
    return lax.fori_loop(0, -(-size // tile), step, empty)


def _with_axes(x: Array, rank: int, batch: tuple[int, ...], *, lacks_others: bool) -> Array:
    """`x` with all of `batch` in front, of which it lacks the first axis, the others, or none."""
    event = x.shape[x.ndim - rank :]
    if lacks_others:
        x = x.reshape(batch[0], *(1 for _ in batch[1:]), *event)
    return jnp.broadcast_to(x, (*batch, *event))


def _rule(ranks: Sequence[int], has: Sequence[bool], to: Sequence[int]) -> tuple[str, str]:
    """Names of all axes as in einsum, and those that are of one matrix."""
    letters = iter(string.ascii_lowercase)
    terms = [
        " ".join([*(["..."] if mine else []), *(next(letters) for _ in range(rank))])
        for rank, mine in zip((*ranks, *to), (*has, *(True for _ in to)), strict=True)
    ]
    text = f"{', '.join(terms[: len(ranks)])} -> {', '.join(terms[len(ranks) :])}"
    return text, "".join(c for c in text if c.isalpha())
