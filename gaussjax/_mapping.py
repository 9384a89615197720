"""`vmap` over the axes of a batch: once per axis, over only the arrays that have it.

So what a batch shares is neither copied nor factorised again. In a returned structure, whatever
does not depend on an axis is shared too, with an axis of size one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal
from jax.sharding import PartitionSpec
from jaxtyping import Array

from gaussjax._sharding import batch_spec, event_axes, explicit_axes, resharded, varying_alike
from gaussjax._struct import is_structure

Flags = Sequence[Sequence[bool]]
"""Of each axis of the batch, and there of each array: whether it has the axis."""


def over_leading_axes(
    function: Callable[..., Any],
    leaves: Sequence[Array],
    event_ranks: Sequence[int],
    *,
    shares: bool = False,
) -> Any:
    """`function(*leaves)` where leaf i has `event_ranks[i]` event axes; outputs gain the batch.

    With `shares` the arrays of a returned structure have the axes of the batch that they depend on,
    and axes of size one for the others. If the mesh has explicit axes, each device maps over its
    own part of the batch.
    """
    batches = [x.shape[: x.ndim - rank] for x, rank in zip(leaves, event_ranks, strict=True)]
    batch = jnp.broadcast_shapes(*batches)
    aligned = [(1,) * (len(batch) - len(b)) + b for b in batches]
    given = [[b[i] == size and size != 1 for b in aligned] for i, size in enumerate(batch)]
    spec = batch_spec(leaves, event_ranks)
    returned, treedef = None, None
    if shares and any(any(has) and not all(has) for has in given):
        reach, treedef = _reach(function, leaves, event_ranks)
        returned = [[any(has[i] for i in inputs) for inputs in reach] for has in given]
        function = _flat(function)
    leaves = [
        jnp.squeeze(x, tuple(i for i, n in enumerate(b) if n == 1))
        for x, b in zip(varying_alike(leaves), batches, strict=True)
    ]
    lifted = functools.partial(_mapped, function, given, returned)
    if any(spec):
        # Axes that shard nothing are manual too: JAX 0.12 fails to compile some code beside one
        # that is not.
        axes = explicit_axes() - event_axes(leaves, event_ranks)
        lifted = _on_each_device(lifted, axes, spec, given, returned)
    out = lifted(*leaves)
    return out if treedef is None else jax.tree.unflatten(treedef, out)


def _on_each_device(
    function: Callable[..., Any],
    axes: set[str],
    spec: Sequence[Any],
    given: Flags,
    returned: Flags | None,
) -> Callable[..., Any]:
    """`function` of each device's own part of a batch whose axes are sharded like `spec`."""
    in_specs = tuple(
        PartitionSpec(*(axis for axis, has in zip(spec, each, strict=True) if has))
        for each in zip(*given, strict=True)
    )
    out_specs = PartitionSpec(*spec) if returned is None else [
        PartitionSpec(*(axis if has else None for axis, has in zip(spec, each, strict=True)))
        for each in zip(*returned, strict=True)
    ]  # fmt: skip
    # `check_vma` is off: a `scan` that starts from a constant fails it.
    sharded = jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, axis_names=axes, check_vma=False
    )
    return lambda *leaves: sharded(*map(resharded, leaves, in_specs))


def _mapped(
    function: Callable[..., Any], given: Flags, returned: Flags | None, *leaves: Array
) -> Any:
    """`jax.vmap`, once per batch axis; each leaf has only the axes it was given."""
    for i in reversed(range(len(given))):  # innermost axis first
        function = _over_axis(function, given[i], None if returned is None else returned[i])
    return function(*leaves)


def _over_axis(
    function: Callable[..., Any], given: Sequence[bool], returned: Sequence[bool] | None
) -> Callable[..., Any]:
    if not any(given):
        return lambda *leaves: jax.tree.map(lambda x: x[None], function(*leaves))
    axes = tuple(0 if has else None for has in given)
    if returned is None:
        return jax.vmap(function, axes)
    mapped = jax.vmap(function, axes, [0 if has else None for has in returned])
    return lambda *leaves: [
        x if has else x[None] for x, has in zip(mapped(*leaves), returned, strict=True)
    ]


def _flat(function: Callable[..., Any]) -> Callable[..., list[Array]]:
    return lambda *leaves: jax.tree.leaves(function(*leaves))


def _reach(
    function: Callable[..., Any], leaves: Sequence[Array], event_ranks: Sequence[int]
) -> tuple[list[frozenset[int]], Any]:
    """Which leaves every output depends on, and the tree of the outputs.

    An array outside any structure counts as depending on all leaves: it has the whole batch.
    """
    events = [
        jax.ShapeDtypeStruct(x.shape[x.ndim - rank :], x.dtype)
        for x, rank in zip(leaves, event_ranks, strict=True)
    ]
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*events)
    inputs: dict[Any, frozenset[int]] = {x: frozenset() for x in program.jaxpr.constvars}
    inputs |= {x: frozenset([i]) for i, x in enumerate(program.jaxpr.invars)}

    def reached(variables: Sequence[Any]) -> frozenset[int]:
        known = [inputs[x] for x in variables if not isinstance(x, Literal)]
        return frozenset().union(*known)

    for equation in program.jaxpr.eqns:
        inputs |= dict.fromkeys(equation.outvars, reached(equation.invars))
    everything = frozenset(range(len(leaves)))
    parts = jax.tree.leaves(shapes, is_leaf=is_structure)
    inside = [is_structure(part) for part in parts for _ in jax.tree.leaves(part)]
    outputs = [reached([x]) for x in program.jaxpr.outvars]
    reach = [own if kept else everything for own, kept in zip(outputs, inside, strict=True)]
    return reach, jax.tree.structure(shapes)


@custom_vmap
def all_of_batch(valid: Array) -> Array:
    """Whether a predicate holds for a whole batch, so that `cond` takes one branch and not both."""
    return valid


@all_of_batch.def_vmap
def _(_: int, batched: list[bool], valid: Array) -> tuple[Array, bool]:
    return all_of_batch(jnp.all(valid, axis=0) if batched[0] else valid), False
