"""Functions of a few matrices that CPUs compute for many: which way, and over which axes.

Each is written for one matrix, with LAPACK. What computes a batch is, on a CPU, the native kernel
where there is one, else code that is written out for small matrices, else a loop: what a larger
matrix needs in between stays in the cache, and jaxlib up to 0.10.2 splits a batch of LAPACK calls
over the thread pool that it runs on and blocks in it, so that two batched calls at once can wait
for each other for ever on a machine with few cores; a single matrix is never split. Other devices
compute the batch as one. A batch that is sharded stays so: each device computes its own part.
"""

import functools
import math
import string
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from gaussjax.linalg._kernels import limits, native
from gaussjax.linalg._kernels.devices import split_over_devices

Function = Callable[..., Any]


class _Kernel(NamedTuple):
    """The arguments of `kernel`."""

    function: Function
    written: Function | None
    ranks: tuple[int, ...]
    to: tuple[int, ...]
    tile: int | None
    name: str | None
    order: tuple[int, ...]
    fused: bool


def kernel(
    *ranks: int,
    to: tuple[int, ...],
    written: Function | None = None,
    tile: int | None = 1,
    native: str | None = None,
    order: tuple[int, ...] = (),
    fused: bool = False,
) -> Callable[[Function], Function]:
    """Decorator of a function from arrays of event ranks `ranks` to a tuple, or one array, of `to`.

    `written` computes the same for small matrices, by scalars: it compiles for long, and pays in a
    batch. `native` is the name of a native kernel, `order` what it is told of rows; it leaves to
    written code what is `fused` with what is around it. In a loop `tile` elements of the batch are
    taken at a time, None is all of them; where there is `written`, it is of that. There is no
    derivative: the callers define it in closed form.
    """

    def decorate(function: Function) -> Function:
        def results(of: Function) -> Function:
            """Traced once: not for each platform, loop and derivative around it."""
            return jax.jit(lambda *x: of(*x) if len(to) == 1 else tuple(of(*x)))

        once = results(function), None if written is None else results(written)
        whole = _Kernel(*once, ranks, to, tile, native, order, fused)
        return functools.wraps(function)(_over_axes(whole, 0, (False,) * len(ranks)))

    return decorate


@functools.cache
def _over_axes(k: _Kernel, count: int, has: tuple[bool, ...]) -> Function:
    """The function over `count` leading axes of the arrays that have them; others are shared."""
    ranks, to = k.ranks, k.to

    def events(arrays: Sequence[Array]) -> list[tuple[int, ...]]:
        """Shapes of one element."""
        return [x.shape[x.ndim - rank :] for x, rank in zip(arrays, ranks, strict=True)]

    def largest(arrays: Sequence[Array]) -> int:
        """Of all event axes; beyond every limit where an export does not know them yet."""
        sizes = [n for shape in events(arrays) for n in shape]
        is_known = not any(is_symbolic_dim(n) for n in sizes)
        return max(sizes, default=0) if is_known else sys.maxsize

    def fused_to() -> int:
        return limits.PRODUCT if k.fused else 0

    def written_to() -> int:
        return max(limits.WRITTEN, fused_to())

    def one(arrays: Sequence[Array], limit: int) -> Function:
        """Of one element, written out up to this limit."""
        return k.written if k.written and largest(arrays) <= limit else k.function

    def loop(*arrays: Array) -> tuple[Array, ...]:
        """Over one axis."""
        function = one(arrays, written_to())
        tile = k.tile if function is k.written or not k.written else 1

        def step(own: list[Array]) -> Any:
            rest = iter(own)
            merged = [next(rest) if mine else x for x, mine in zip(arrays, has, strict=True)]
            return function(*merged)

        own = [x for x, mine in zip(arrays, has, strict=True) if mine]
        if tile == 1:
            out = lax.map(step, own)
        else:
            out = _by_tiles(jax.vmap(step), tile or own[0].shape[0], own)
        return tuple(jax.tree.leaves(out))

    def on_cpu(*arrays: Array) -> Any:
        batch = next(x.shape[:count] for x, mine in zip(arrays, has, strict=True) if mine)
        flat = [
            x.reshape(math.prod(batch), *x.shape[count:]) if mine else x
            for x, mine in zip(arrays, has, strict=True)
        ]
        here = is_native(*arrays)
        out = native.call(str(k.name), loop, *flat, order=k.order) if here else loop(*flat)
        results = [x.reshape(*batch, *x.shape[1:]) for x in out]
        return results[0] if len(to) == 1 else tuple(results)

    def is_native(*arrays: Array) -> bool:
        """Whether a native kernel takes the batch."""
        if any(is_symbolic_dim(n) for x in arrays for n in x.shape):  # of an export
            return False
        batch = next(x.shape[:count] for x, mine in zip(arrays, has, strict=True) if mine)
        few = math.prod(batch) < limits.NATIVE_BATCH and largest(arrays) > limits.WRITTEN
        in_range = fused_to() < largest(arrays) <= limits.NATIVE
        return in_range and not few and native.takes(k.name, *arrays)

    def alone(*arrays: Array) -> Any:
        """Of one element that has no batch."""
        if k.tile is None and largest(arrays) <= limits.TINY and k.written:
            return k.written(*arrays)
        if largest(arrays) > limits.NATIVE_ALONE or not native.takes(k.name, *arrays):
            return one(arrays, limits.TINY)(*arrays)
        out = native.call(str(k.name), as_tuple, *arrays, order=k.order)
        return out[0] if len(to) == 1 else out

    def as_tuple(*arrays: Array) -> tuple[Array, ...]:
        return tuple(jax.tree.leaves(one(arrays, limits.TINY)(*arrays)))

    def batched(*arrays: Array) -> Any:
        """The whole batch at once."""
        only_numbers = not any(to)
        limit = limits.WRITTEN_NUMBERS if only_numbers else limits.WRITTEN
        lifted = one(arrays, max(limit, written_to()))
        for _ in range(count):
            lifted = jax.vmap(lifted, in_axes=tuple(0 if mine else None for mine in has))
        return lifted(*arrays)

    @jax.custom_batching.custom_vmap
    def mapped(*arrays: Array) -> Any:
        if count == 0:
            return alone(*arrays)
        is_fused = k.tile is None and one(arrays, written_to()) is k.written
        if is_fused and not is_native(*arrays):
            return batched(*arrays)
        return split_over_devices(on_cpu, *_rule(ranks, has, to), elsewhere=batched)(*arrays)

    @mapped.def_vmap
    def _(size: int, new: list[bool], *arrays: Array) -> tuple[Any, Any]:
        wider = tuple(old or added for old, added in zip(has, new, strict=True))
        if not any(added and rank > 1 for added, rank in zip(new, ranks, strict=True)):
            # More vectors than matrices, which are columns to the solves and products within.
            lifted = one(arrays, written_to())
            for axes in (*[has] * count, new):
                lifted = jax.vmap(lifted, in_axes=tuple(0 if mine else None for mine in axes))
            out = lifted(*arrays)
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
        out = _over_axes(k, count + 1, wider)(*wide)
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
