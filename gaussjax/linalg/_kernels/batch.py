"""Dispatch: how a function of a few matrices is computed for a batch, and over which axes.

Each function is written for one matrix, with LAPACK. On a CPU a batch goes to the native kernel if
there is one, else to unrolled code for small matrices, else to a loop. The loop keeps the
intermediates of a larger matrix in the cache. It also avoids a deadlock: jaxlib up to 0.10.2 splits
a batch of LAPACK calls over the thread pool that it runs on and blocks in it, so with few cores two
batched calls can wait for each other for ever; a single matrix is never split. GPUs and TPUs
compute the whole batch at once. A sharded batch stays sharded: each device computes its own part.
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
from gaussjax.linalg._kernels.devices import split_over_devices, with_vmap
from gaussjax.linalg._kernels.platforms import by_platform
from gaussjax.linalg._kernels.signature import Signature, parsed

Function = Callable[..., Any]


class _Kernel(NamedTuple):
    """The arguments of `kernel`."""

    function: Function
    written: Function | None
    signature: Signature
    tile: int | None
    name: str | None
    order: tuple[int, ...]
    fused: int
    shared: bool
    single: bool

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of the operands."""
        return tuple(map(len, self.signature.operands))

    @property
    def to(self) -> tuple[int, ...]:
        """Ranks of the results."""
        return tuple(map(len, self.signature.results))


def kernel(
    signature: str,
    *,
    written: Function | None = None,
    tile: int | None = 1,
    native: str | None = None,
    order: tuple[int, ...] = (),
    fused: int = 0,
    shared: bool = False,
    single: bool = False,
) -> Callable[[Function], Function]:
    """Decorator of a function of one matrix or a few, to an array or a tuple, of this `signature`.

    `written` computes the same for small matrices by scalar operations: it is slow to compile, and
    pays off in a batch. `native` names a native kernel, `order` tells it the order of rows; up to
    the size `fused` a batch goes to `written` instead, which fuses with the code around it. A loop
    takes `tile` elements of the batch at a time (None: all of them), with `written` if there is
    one. With `shared` the native kernel also takes many vectors that share matrices, with `single`
    also one matrix, and larger ones. There is no derivative: callers define it in closed form.
    """
    named = parsed(signature)

    def decorate(function: Function) -> Function:
        @functools.cache
        def once(of: Function) -> Function:
            """Traced once: not for each platform, loop and derivative around it."""
            return jax.jit(lambda *x: of(*x) if len(named.results) == 1 else tuple(of(*x)))

        unrolled = None if written is None else once(written)
        whole = _Kernel(once(function), unrolled, named, tile, native, order, fused, shared, single)
        return functools.wraps(function)(_over_axes(whole, 0, (False,) * len(named.operands)))

    return decorate


@functools.cache
def _over_axes(k: _Kernel, count: int, has: tuple[bool, ...]) -> Function:
    """The function over `count` leading axes of the arrays that have them; others are shared."""
    batch = _Batch(k, count, has)
    own = by_platform(cpu=batch.on_cpu, elsewhere=batch.at_once, shapes=batch.shapes)
    split = split_over_devices(own, *_rule(k.ranks, has, k.to))

    def call(*arrays: Array) -> Any:
        if count == 0:
            out = batch.alone(*arrays)
        elif batch.is_fused(*arrays):
            out = batch.at_once(*arrays)
        else:
            out = split(*arrays)
        return out[0] if len(k.to) == 1 else tuple(out)

    def rule(size: int, new: list[bool], *arrays: Array) -> tuple[Any, Any]:
        if batch.takes_axis(new, arrays):
            out = batch.with_axis(size, new, arrays)
        else:  # more vectors than matrices, which are columns to the solves and products within
            out = _mapped(batch.one(*arrays), [*[has] * count, new])(*arrays)
        return out, jax.tree.map(lambda _: True, out)

    return with_vmap(call, rule)


class _Batch:
    """Ways to compute one kernel for a batch; each array has `count` batch axes or none."""

    def __init__(self, k: _Kernel, count: int, has: tuple[bool, ...]):
        self.k, self.count, self.has = k, count, has
        self.written_to = max(limits.WRITTEN, k.fused)
        self.flat_shapes = functools.partial(self.shapes, axes=min(count, 1))  # of one axis

    def alone(self, *arrays: Array) -> Sequence[Array]:
        """One element, without a batch."""
        k, largest = self.k, self.largest(arrays)
        is_tiny = k.tile is None and k.written and largest <= limits.TINY
        is_large = largest > limits.NATIVE_ALONE and not k.single
        if is_tiny or is_large or not native.takes(k.name, *arrays):
            return by_platform(cpu=self.plain, elsewhere=self.plain, shapes=self.shapes)(*arrays)
        return native.call(str(k.name), self.plain, self.shapes, *arrays, order=k.order)

    def plain(self, *arrays: Array) -> list[Array]:
        """One element, without a native kernel."""
        return jax.tree.leaves(self.one(*arrays, limit=limits.TINY)(*arrays))

    def at_once(self, *arrays: Array) -> list[Array]:
        """The whole batch at once, as on GPUs and TPUs."""
        only_numbers = not any(self.k.to)
        limit = max(limits.WRITTEN_NUMBERS if only_numbers else limits.WRITTEN, self.written_to)
        mapped = _mapped(self.one(*arrays, limit=limit), [self.has] * self.count)
        return jax.tree.leaves(mapped(*arrays))

    def on_cpu(self, *arrays: Array) -> list[Array]:
        """By a native kernel, or in a loop."""
        sizes = self.sizes(arrays)
        flat = [
            x.reshape(math.prod(sizes), *x.shape[self.count :]) if mine else x
            for x, mine in zip(arrays, self.has, strict=True)
        ]
        if self.is_native(*arrays):
            name, order = str(self.k.name), self.k.order
            each = zip(self.k.ranks, self.has, strict=True)
            plain = self.loop if any(has for rank, has in each if rank > 1) else self.of_vectors
            out = native.call(name, plain, self.flat_shapes, *flat, order=order)
        else:
            out = self.loop(*flat)
        return [x.reshape(*sizes, *x.shape[1:]) for x in out]

    def of_vectors(self, *arrays: Array) -> list[Array]:
        """Over one axis of vectors, which are solved together."""
        return jax.tree.leaves(_mapped(self.one(*arrays), [self.has])(*arrays))

    def loop(self, *arrays: Array) -> list[Array]:
        """Over one axis."""
        function, written = self.one(*arrays), self.k.written
        tile = self.k.tile if function is written or not written else 1

        def step(own: list[Array]) -> Any:
            rest = iter(own)
            merged = [next(rest) if mine else x for x, mine in zip(arrays, self.has, strict=True)]
            return function(*merged)

        own = [x for x, mine in zip(arrays, self.has, strict=True) if mine]
        if tile == 1:
            return jax.tree.leaves(lax.map(step, own))
        return jax.tree.leaves(_by_tiles(jax.vmap(step), tile or own[0].shape[0], own))

    def is_fused(self, *arrays: Array) -> bool:
        """Whether it is unrolled, all at once and without a native kernel."""
        is_written = self.k.written is not None and self.one(*arrays) is self.k.written
        return self.k.tile is None and is_written and not self.is_native(*arrays)

    def is_native(self, *arrays: Array) -> bool:
        """Whether a native kernel takes the batch."""
        if any(is_symbolic_dim(n) for x in arrays for n in x.shape):  # of an export
            return False
        largest = self.largest(arrays)
        is_small = math.prod(self.sizes(arrays)) < limits.NATIVE_BATCH
        is_small &= largest > limits.NATIVE_ALONE
        in_range = self.k.single or (largest <= limits.NATIVE and not is_small)
        return self.k.fused < largest and in_range and native.takes(self.k.name, *arrays)

    def one(self, *arrays: Array, limit: int | None = None) -> Function:
        """The function of one element, unrolled up to this limit."""
        k, limit = self.k, self.written_to if limit is None else limit
        return k.written if k.written and self.largest(arrays) <= limit else k.function

    def largest(self, arrays: Sequence[Array]) -> int:
        """Largest event axis; beyond every limit if an export does not know it yet."""
        sizes = [n for shape in self.events(arrays) for n in shape]
        is_known = not any(is_symbolic_dim(n) for n in sizes)
        return max(sizes, default=0) if is_known else sys.maxsize

    def events(self, arrays: Sequence[Array]) -> list[tuple[int, ...]]:
        """Shapes of one element."""
        return [x.shape[x.ndim - rank :] for x, rank in zip(arrays, self.k.ranks, strict=True)]

    def sizes(self, arrays: Sequence[Array], axes: int | None = None) -> tuple[int, ...]:
        """Of the first axes of the batch, or all."""
        axes = self.count if axes is None else axes
        return next((x.shape[:axes] for x, mine in zip(arrays, self.has, strict=True) if mine), ())

    def shapes(self, *arrays: Array, axes: int | None = None) -> list[Any]:
        """Of the results, after so many axes of the batch."""
        sizes, dtype = self.sizes(arrays, axes), jnp.result_type(*arrays)
        each = self.k.signature.shapes(self.events(arrays))
        return [jax.ShapeDtypeStruct((*sizes, *shape), dtype) for shape in each]

    def takes_axis(self, new: Sequence[bool], arrays: Sequence[Array]) -> bool:
        """Whether a batch with one more axis is one of matrices, or of vectors as it takes them."""
        of_matrices = [
            (h, n) for rank, h, n in zip(self.k.ranks, self.has, new, strict=True) if rank > 1
        ]
        if any(added for _, added in of_matrices):
            return self.count == 0 or any(has for has, _ in of_matrices)
        wider, largest = _Batch(self.k, 1, tuple(new)), self.largest(arrays)
        if self.count > 0 or not self.k.shared or not wider.is_native(*arrays):
            return False
        are_few = self.k.single and math.prod(wider.sizes(arrays)) < limits.NATIVE_BATCH
        return largest > self.written_to and (largest <= limits.SHARED or are_few)

    def with_axis(self, size: int, new: Sequence[bool], arrays: Sequence[Array]) -> Any:
        """With one more axis in front of the arrays that have a `new` one."""
        has = tuple(old or added for old, added in zip(self.has, new, strict=True))
        each = zip(arrays, self.k.ranks, self.has, strict=True)
        known = [
            x.shape[x.ndim - rank - self.count : x.ndim - rank] for x, rank, old in each if old
        ]
        batch = (size, *(known[0] if known else ()))
        wide = [
            _with_axes(x, rank, batch, lacks_others=added and not old) if added or old else x
            for x, rank, added, old in zip(arrays, self.k.ranks, new, self.has, strict=True)
        ]
        return _over_axes(self.k, self.count + 1, has)(*wide)


def _mapped(function: Function, axes: Sequence[Sequence[bool]]) -> Function:
    """`vmap`, once for each axis, over the arrays that have it; the innermost axis comes first."""
    for has in axes:
        function = jax.vmap(function, in_axes=tuple(0 if mine else None for mine in has))
    return function


def _by_tiles(function: Callable[[list[Array]], Any], tile: int, batch: list[Array]) -> Any:
    """A loop over tiles; the last one ends with the batch, and may overlap the one before."""
    size = batch[0].shape[0]
    if is_symbolic_dim(size) or size <= tile:  # of an export: how many there are is not known yet
        return function(batch)

    def step(i: Array, out: Any) -> Any:
        start = jnp.minimum(i * tile, size - tile)
        part = function([lax.dynamic_slice_in_dim(x, start, tile) for x in batch])
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 0), out, part)

    # A constant would not be batched, and would have another type in a surrounding `shard_map`.
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
