"""Lifts a function written for one Gaussian over leading axes, by NumPy's gufunc rules.

Batch axes broadcast and event axes never do. Lifting is `jax.vmap`, once per batch axis, over just
the leaves that have the axis: what is shared by a batch is neither copied nor factorised again.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int

from gaussjax import _checks
from gaussjax._struct import is_structure, ranks

F = TypeVar("F", bound=Callable[..., Any])


def over_leading_axes(
    function: Callable[..., Any],
    leaves: Sequence[Array],
    event_ranks: Sequence[int],
    names: Sequence[str],
) -> Any:
    """`function(*leaves)` where leaf i has `event_ranks[i]` event axes; outputs gain the batch.

    Where the mesh has explicit axes, each device maps over its own part of the batch.
    """
    batches = _batches(leaves, event_ranks)
    _checks.broadcastable(names, batches)
    lifted = functools.partial(_mapped, function, event_ranks)
    leaves = _varying_alike(leaves)
    spec = batch_spec(leaves, event_ranks)
    if not any(spec):
        return lifted(*leaves)
    own = [_spec_of(batch, spec) for batch in batches]
    # Without the check of what varies over devices: a `scan` that starts from a constant fails it.
    sharded = jax.shard_map(
        lifted, in_specs=tuple(own), out_specs=PartitionSpec(*spec),
        axis_names=set(jax.tree.leaves(spec)), check_vma=False,
    )  # fmt: skip
    return sharded(*(_resharded(x, batch) for x, batch in zip(leaves, own, strict=True)))


def _varying_alike(leaves: Sequence[Array]) -> list[Array]:
    """Leaves that vary over the same axes of a `shard_map` around this, as loops want them."""
    each = [varying_axes(x) for x in leaves]
    lacking = [tuple(frozenset().union(*each) - axes) for axes in each]
    return [
        jax.lax.pcast(x, axes, to="varying") if axes else x
        for x, axes in zip(leaves, lacking, strict=True)
    ]


def varying_axes(x: Array) -> frozenset[str]:
    """Axes of a `shard_map` around this over which `x` varies."""
    kind = jax.typeof(x)
    newer = getattr(kind, "manual_axis_type", None)  # from JAX 0.11 on
    return frozenset(getattr(kind, "vma", ()) if newer is None else newer.varying)


def _mapped(function: Callable[..., Any], event_ranks: Sequence[int], *leaves: Array) -> Any:
    """`jax.vmap`, once per batch axis, over the leaves that have it."""
    batches = _batches(leaves, event_ranks)
    batch = np.broadcast_shapes(*batches)
    lifted = function
    for position in range(1, len(batch) + 1):  # innermost axis first
        size = batch[-position]
        sizes = [shape[-position] if position <= len(shape) else 1 for shape in batches]
        axes = tuple(0 if n == size and n != 1 else None for n in sizes)
        lifted = _new_axis(lifted) if size == 1 else jax.vmap(lifted, in_axes=axes)
    return lifted(*(_squeezed(x, shape) for x, shape in zip(leaves, batches, strict=True)))


def _batches(leaves: Sequence[Array], event_ranks: Sequence[int]) -> list[tuple[int, ...]]:
    return [x.shape[: x.ndim - rank] for x, rank in zip(leaves, event_ranks, strict=True)]


def batch_spec(leaves: Sequence[Array], event_ranks: Sequence[int]) -> tuple[Any, ...]:
    """Mesh axes that each batch axis is sharded over, where the mesh has explicit axes."""
    found: list[Any] = []
    for x, rank in zip(leaves, event_ranks, strict=True):
        for i, axis in enumerate(reversed(_spec(x)[: x.ndim - rank])):
            found += [None] * (i + 1 - len(found))
            found[i] = found[i] or axis
    return tuple(reversed(found))


def _spec(x: Array) -> tuple[Any, ...]:
    spec = tuple(jax.typeof(x).sharding.spec)
    return spec + (None,) * (x.ndim - len(spec))


def _spec_of(batch: tuple[int, ...], spec: tuple[Any, ...]) -> PartitionSpec:
    """The part of `spec` that an array with these batch axes can have."""
    axes = ((None,) * len(batch) + spec)[len(spec) :]  # the last ones
    return PartitionSpec(*(a if n > 1 else None for a, n in zip(axes, batch, strict=True)))


def _resharded(x: Array, batch: PartitionSpec) -> Array:
    """`x` with its batch axes sharded like that."""
    wanted = (*batch, *_spec(x)[len(batch) :])
    return x if wanted == _spec(x) else jax.sharding.reshard(x, PartitionSpec(*wanted))


def in_working_precision(leaves: Sequence[Array]) -> tuple[list[Array], jnp.dtype]:
    """Real leaves in one dtype, at least float32, and the dtype that results go back to."""
    floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    dtype = jnp.result_type(*(x for x, real in zip(leaves, floating, strict=True) if real))
    wide = working_dtype(dtype)
    cast_leaves = [x.astype(wide) if f else x for x, f in zip(leaves, floating, strict=True)]
    return cast_leaves, dtype


def working_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to compute in: half precision is factorised in float32."""
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def restore(tree: Any, dtype: jnp.dtype) -> Any:
    """Floating leaves of `tree` in `dtype`."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def result_dtype(tree: Any) -> jnp.dtype:
    """Common dtype of a structure's leaves, in which results about it come."""
    return jnp.result_type(*(_checks.real_array("leaf", x) for x in jax.tree.leaves(tree)))


def batch_shape_of(tree: Any) -> tuple[int, ...]:
    """Broadcast batch shape of a structure's leaves."""
    leaves = jax.tree.leaves(tree)
    shapes = [jnp.shape(x)[: jnp.ndim(x) - r] for x, r in zip(leaves, ranks(tree), strict=True)]
    return _checks.broadcastable([f"leaf {i}" for i in range(len(leaves))], shapes)


def lift(*event_ranks: int) -> Callable[[F], F]:
    """Decorator: the first arguments are arrays of these event ranks; leading axes broadcast."""

    def decorate(function: F) -> F:
        count = len(event_ranks)
        signature = inspect.signature(function)
        names = list(signature.parameters)[:count]

        @functools.wraps(function)
        def lifted(*args: Any, **options: Any) -> Any:
            signature.bind(*args, **options)  # says which argument is missing or too many
            arrays = [_checks.real_array(n, x) for n, x in zip(names, args[:count], strict=True)]
            for name, array, rank in zip(names, arrays, event_ranks, strict=True):
                _checks.rank_at_least(name, array, rank)
            return call_lifted(arrays, function, None, event_ranks, tuple(names), _static(options))

        return cast(F, lifted)

    return decorate


def lift_events(function: F) -> F:
    """Decorator: the annotations of the arguments say which axes are event axes.

    Each argument is a structure, or an array whose last axes are those named in its annotation. A
    structure's dimension is called `d`, or `m` in `Annotated[Gaussian, "m"]`; axes of one name have
    one size. Keyword arguments are static.
    """
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    names = [p.name for p in positional]
    kinds = [p.annotation for p in positional]
    signature = inspect.signature(function)

    @functools.wraps(function)
    def lifted(*args: Any, **options: Any) -> Any:
        signature.bind(*args, **options)  # says which argument is missing or too many
        args = tuple(_argument(n, x, k) for n, x, k in zip(names, args, kinds, strict=True))
        _same_dimension(names, args, kinds)
        leaves, treedef = jax.tree.flatten(args)
        leaf_ranks = [
            rank
            for x, kind in zip(args, kinds, strict=True)
            for rank in (ranks(x) if is_structure(x) else [len(_event_axes(kind))])
        ]
        owners = [n for n, x in zip(names, args, strict=True) for _ in jax.tree.leaves(x)]
        return call_lifted(
            leaves, function, treedef, tuple(leaf_ranks), tuple(owners), _static(options)
        )

    return cast(F, lifted)


# Compiled, so that an eager call runs one program, which the next like it finds again; inlined, so
# that a program that is being traced sees the operations themselves.
@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5), inline=True)
def call_lifted(
    leaves: Sequence[Array],
    function: Callable[..., Any],
    treedef: Any,
    event_ranks: tuple[int, ...],
    names: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
) -> Any:
    """`function` over leading axes, in working precision and back."""
    leaves, dtype = in_working_precision(leaves)

    def core(*values: Array) -> Any:
        args = values if treedef is None else jax.tree.unflatten(treedef, values)
        return function(*args, **dict(options))

    return restore(over_leading_axes(core, leaves, event_ranks, names), dtype)


def _static(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(options.items()))


def _argument(name: str, value: Any, kind: Any) -> Any:
    """An argument as its annotation says: a structure of real leaves, or an array."""
    if not _is_array(kind):
        value = _checks.instance(name, value, getattr(kind, "__origin__", kind))
        return jax.tree.map(functools.partial(_checks.real_array, name), value)
    kinds_of_array = {Bool: _checks.bool_array, Int: _checks.index_array}
    array = kinds_of_array.get(kind.dtype, _checks.real_array)(name, value)
    _checks.rank_at_least(name, array, len(_event_axes(kind)))
    return array


def _is_array(annotation: Any) -> bool:
    return hasattr(annotation, "array_type")


def _event_axes(annotation: Any) -> list[str]:
    """Names of an array's event axes, or of a structure's dimension."""
    if _is_array(annotation):
        return [axis for axis in annotation.dim_str.split() if axis != "..."]
    return list(getattr(annotation, "__metadata__", ["d"]))


def _same_dimension(names: list[str], args: tuple[Any, ...], kinds: list[Any]) -> None:
    """Event sizes never broadcast: `x` of shape (n, 1) is no vector of two dimensions."""
    sizes: dict[str, tuple[str, int]] = {}  # of each axis, from the first structure that has it
    for name, x, kind in zip(names, args, kinds, strict=True):
        if not _is_array(kind):
            whose, size = sizes.setdefault(_event_axes(kind)[0], (name, x.dim))
            if x.dim != size:
                raise ValueError(f"{name} must have dimension {size} like {whose}, got {x.dim}.")
    for name, x, kind in zip(names, args, kinds, strict=True):
        axes = _event_axes(kind)
        if _is_array(kind) and axes and axes[-1] in sizes:
            whose, size = sizes[axes[-1]]
            _checks.same_dim(name, x.shape[-1], x.shape, size, whose)
        if _is_array(kind) and len(axes) == 2 and axes[0] in sizes:
            whose, size = sizes[axes[0]]
            _checks.same_rows(name, x.shape, size, whose)


@custom_vmap
def all_of_batch(valid: Array) -> Array:
    """Whether a predicate holds in a whole batch: by that `cond` takes one way, not both."""
    return valid


@all_of_batch.def_vmap
def _(_: int, batched: list[bool], valid: Array) -> tuple[Array, bool]:
    return all_of_batch(jnp.all(valid, axis=0) if batched[0] else valid), False


def _squeezed(x: Array, batch: tuple[int, ...]) -> Array:
    return jnp.squeeze(x, tuple(i for i, size in enumerate(batch) if size == 1))


def _new_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: jax.tree.map(lambda x: x[None], function(*args))
