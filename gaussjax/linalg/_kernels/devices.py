"""Sharded batched calls: each device calls the kernel on its own part of the batch.

XLA gathers a sharded batch for a kernel that it does not know to be batched: a loop, a sort, a
transform. Such a kernel is marked here with the axes that may be split.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from gaussjax._sharding import LATE, explicit_axes, varying_axes

Function = Callable[..., Any]


def split_over_devices(function: Function, rule: str, whole: str) -> Function:
    """`function` of arrays whose axes `rule` names as in einsum; those in `whole` are never split.

    It returns an array or a list of arrays. It has no derivative, so callers define one above it.
    """
    before, after = (side.split(",") for side in rule.split("->"))

    def partition(mesh: Any, arguments: Any, result: Any) -> Any:
        results, treedef = jax.tree.flatten(result)
        shardings = [x.sharding for x in (*arguments, *results)]
        if all(isinstance(x, NamedSharding) for x in shardings):  # else XLA has made them alike
            names = _names([*before, *after], [*arguments, *results])
            split = _split([*arguments, *results], names, whole)
            shardings = [NamedSharding(mesh, _spec(split, axes)) for axes in names]
        given, wanted = shardings[: len(arguments)], shardings[len(arguments) :]
        return mesh, function, jax.tree.unflatten(treedef, wanted), tuple(given)

    automatic = custom_partitioning(function)
    automatic.def_partition(partition, sharding_rule=rule, need_replication_factors=tuple(whole))

    def unsplit(*arrays: Array) -> Any:
        # Inside a `shard_map` the array is already a part; with explicit axes that do not split it,
        # it is whole.
        is_settled = LATE.value or explicit_axes() or any(varying_axes(x) for x in arrays)
        return (function if is_settled else automatic)(*arrays)

    def call(*arrays: Array) -> Any:
        names = _names(before, arrays)
        split = _split([jax.typeof(x) for x in arrays], names, whole)
        if not split:
            return unsplit(*arrays)
        specs = [_spec(split, axes) for axes in names]
        batch = max(len(axes) - len(_letters(t)) for axes, t in zip(names, before, strict=True))
        results = [_spec(split, _axes(term, batch)) for term in after]
        parts = jax.shard_map(
            unsplit, in_specs=tuple(specs), out_specs=results if len(results) > 1 else results[0],
            axis_names=explicit_axes(), check_vma=False,
        )  # fmt: skip
        return parts(*(jax.sharding.reshard(x, s) for x, s in zip(arrays, specs, strict=True)))

    return call


def over_batches(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function`, written for any leading axes, so that `vmap` gives it one more of them."""

    def rule(size: int, batched: list[bool], *stacks: Array) -> tuple[Array, bool]:
        wide = [
            x if has_axis else jnp.broadcast_to(x, (size, *x.shape))
            for x, has_axis in zip(stacks, batched, strict=True)
        ]
        return mapped(*wide), True

    mapped = with_vmap(function, rule)
    return mapped


def with_vmap(function: Function, rule: Function) -> Function:
    """As `jax.custom_batching.custom_vmap`, its rule in the context of the call and not of `vmap`.

    A loop that was traced in `LATE` may be mapped over outside of it.
    """

    @functools.cache
    def of_context(whole: bool) -> Function:
        mapped = jax.custom_batching.custom_vmap(function)

        @mapped.def_vmap
        def _(size: int, batched: Any, *arrays: Array) -> Any:
            with LATE(whole):
                return rule(size, batched, *arrays)

        return mapped

    return lambda *arrays: of_context(LATE.value)(*arrays)


def _letters(term: str) -> list[str]:
    return [word for word in term.split() if word != "..."]


def _axes(term: str, batch: int) -> list[str]:
    """Names of all axes: numbers for those of the batch."""
    leading = [str(i) for i in range(batch)] if "..." in term else []
    return leading + _letters(term)


def _names(terms: Sequence[str], arrays: Sequence[Any]) -> list[list[str]]:
    """Names of the axes of each array."""
    return [
        _axes(term, x.ndim - len(_letters(term))) for term, x in zip(terms, arrays, strict=True)
    ]


def _split(arrays: Sequence[Any], names: Sequence[Sequence[str]], whole: str) -> dict[str, Any]:
    """Mesh axes that each axis is sharded over; one that two would take goes to the first."""
    found: dict[str, Any] = {}
    taken: set[str] = set()
    for x, axes in zip(arrays, names, strict=True):
        for name, mesh_axes in zip(axes, x.sharding.spec, strict=False):
            own = set(jax.tree.leaves(mesh_axes))
            if own and name not in whole and name not in found and not own & taken:
                found[name] = mesh_axes
                taken |= own
    return found


def _spec(split: dict[str, Any], axes: Sequence[str]) -> PartitionSpec:
    return PartitionSpec(*(split.get(name) for name in axes))
