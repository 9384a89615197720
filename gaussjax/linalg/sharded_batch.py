"""Batched calls that devices share: each calls the kernel on its own part of the batch.

XLA brings a sharded batch together for a kernel that it does not know to be batched: a loop, a
sort, a transform. Such a kernel is marked here with the axes that may be split.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jaxtyping import Array


def partitioned(function: Callable[..., Array], rule: str, whole: str) -> Callable[..., Array]:
    """`function` of arrays whose axes `rule` names as in einsum; those in `whole` are never split.

    It has no derivative, so the kernels have rules of their own above it.
    """

    def partition(mesh: Any, arguments: Any, result: Any) -> Any:
        wanted, given = jax.tree.map(lambda x: x.sharding, (result, arguments))
        return mesh, function, wanted, given

    call = custom_partitioning(function)
    call.def_partition(partition, sharding_rule=rule, need_replication_factors=tuple(whole))
    return call


def over_batches(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function`, written for any leading axes, so that `vmap` gives it one more of them."""

    @jax.custom_batching.custom_vmap
    def mapped(*stacks: Array) -> Array:
        return function(*stacks)

    @mapped.def_vmap
    def _(size: int, batched: list[bool], *stacks: Array) -> tuple[Array, bool]:
        wide = [
            x if has_axis else jnp.broadcast_to(x, (size, *x.shape))
            for x, has_axis in zip(stacks, batched, strict=True)
        ]
        return mapped(*wide), True

    return mapped
