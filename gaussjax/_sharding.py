"""Batch axes that are sharded over a mesh with explicit axes, and axes of a `shard_map` around."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

LATE = jax.make_user_context(default_value=False)
"""True where a program is traced so late that JAX no longer says which devices it runs on.

A split of the batch needs them; without it the kernel is the same on the whole batch.
"""


def batch_spec(leaves: Sequence[Array], event_ranks: Sequence[int]) -> tuple[Any, ...]:
    """Mesh axes that each batch axis is sharded over, where the mesh has explicit axes.

    If two axes of the batch are sharded over one mesh axis, the first gets it.
    """
    found: list[Any] = []
    for x, rank in zip(leaves, event_ranks, strict=True):
        for i, axis in enumerate(reversed(_spec(x)[: x.ndim - rank])):
            found += [None] * (i + 1 - len(found))
            if not set(jax.tree.leaves(axis)) & set(jax.tree.leaves(found)):
                found[i] = found[i] or axis
    return tuple(reversed(found))


def explicit_axes() -> set[str]:
    """Axes of the mesh whose sharding is part of the type of an array."""
    mesh = jax.sharding.get_abstract_mesh()
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in types if kind == AxisType.Explicit}


@contextlib.contextmanager
def mesh_of(tree: Any) -> Iterator[None]:
    """Works in the mesh of explicitly sharded arrays, where `jax.set_mesh` has not set one."""
    is_set = not jax.sharding.get_abstract_mesh().empty
    arrays = [] if is_set else [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    meshes = (jax.typeof(x).sharding.mesh for x in arrays)
    found = next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
    with contextlib.nullcontext() if found is None else jax.sharding.use_abstract_mesh(found):
        yield


def event_axes(leaves: Sequence[Array], event_ranks: Sequence[int]) -> set[str]:
    """Mesh axes that an event axis is sharded over."""
    specs = [_spec(x)[x.ndim - rank :] for x, rank in zip(leaves, event_ranks, strict=True)]
    return set(jax.tree.leaves(specs))


def resharded(x: Array, batch: PartitionSpec) -> Array:
    """`x` with its batch axes sharded like `batch`."""
    wanted = (*batch, *_spec(x)[len(batch) :])
    return x if wanted == _spec(x) else jax.sharding.reshard(x, PartitionSpec(*wanted))


def _spec(x: Array) -> tuple[Any, ...]:
    spec = tuple(jax.typeof(x).sharding.spec)
    return spec + (None,) * (x.ndim - len(spec))


def varying_axes(x: Array) -> frozenset[str]:
    """Axes of a surrounding `shard_map` over which `x` varies."""
    kind = jax.typeof(x)
    newer = getattr(kind, "manual_axis_type", None)  # from JAX 0.11 on
    return frozenset(getattr(kind, "vma", ()) if newer is None else newer.varying)


def varying_alike(leaves: Sequence[Array]) -> list[Array]:
    """Leaves that vary over the same axes of a surrounding `shard_map`, as loops require."""
    each = [varying_axes(x) for x in leaves]
    lacking = [tuple(frozenset().union(*each) - axes) for axes in each]
    return [
        jax.lax.pcast(x, axes, to="varying") if axes else x
        for x, axes in zip(leaves, lacking, strict=True)
    ]
