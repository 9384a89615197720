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
from jaxtyping import Array

from gaussjax import _checks
from gaussjax._struct import is_structure, ranks

F = TypeVar("F", bound=Callable[..., Any])


def over_leading_axes(
    function: Callable[..., Any],
    leaves: Sequence[Array],
    event_ranks: Sequence[int],
    names: list[str],
) -> Any:
    """`function(*leaves)` where leaf i has `event_ranks[i]` event axes; outputs gain the batch."""
    batches = [x.shape[: x.ndim - rank] for x, rank in zip(leaves, event_ranks, strict=True)]
    batch = _checks.broadcastable(names, batches)
    lifted = function
    for position in range(1, len(batch) + 1):  # innermost axis first
        size = batch[-position]
        sizes = [shape[-position] if position <= len(shape) else 1 for shape in batches]
        axes = tuple(0 if n == size and n != 1 else None for n in sizes)
        lifted = _new_axis(lifted) if size == 1 else jax.vmap(lifted, in_axes=axes)
    return lifted(*(_squeezed(x, shape) for x, shape in zip(leaves, batches, strict=True)))


def in_working_precision(leaves: Sequence[Array]) -> tuple[list[Array], jnp.dtype]:
    """Leaves in one common dtype, at least float32, and the dtype that results go back to."""
    dtype = jnp.result_type(*leaves)
    return [x.astype(working_dtype(dtype)) for x in leaves], dtype


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
            arrays, dtype = in_working_precision(arrays)

            def core(*values: Array) -> Any:
                return function(*values, *args[count:], **options)

            return restore(over_leading_axes(core, arrays, event_ranks, names), dtype)

        return cast(F, lifted)

    return decorate


def lift_events(function: F) -> F:
    """Decorator: each argument is a structure with a `dim`, or vectors of that size.

    The annotations say which; the first is a structure.
    """
    signature = inspect.signature(function)
    names = list(signature.parameters)
    annotations = {name: p.annotation for name, p in signature.parameters.items()}
    structures = {name: kind for name, kind in annotations.items() if _is_class(kind)}

    @functools.wraps(function)
    def lifted(*args: Any) -> Any:
        signature.bind(*args)  # says which argument is missing or too many
        args = tuple(
            _checks.instance(n, x, structures[n]) if n in structures else _checks.real_array(n, x)
            for n, x in zip(names, args, strict=True)
        )
        _same_dimension(names, args)
        leaves, treedef = jax.tree.flatten(args)
        leaf_ranks = [r for x in args for r in (ranks(x) if is_structure(x) else [1])]
        owners = [n for n, x in zip(names, args, strict=True) for _ in jax.tree.leaves(x)]
        leaves = [_checks.real_array(n, x) for n, x in zip(owners, leaves, strict=True)]
        leaves, dtype = in_working_precision(leaves)

        def core(*values: Array) -> Any:
            return function(*jax.tree.unflatten(treedef, values))

        return restore(over_leading_axes(core, leaves, leaf_ranks, owners), dtype)

    return cast(F, lifted)


def _is_class(annotation: Any) -> bool:
    """Whether an annotation is a class of ours, and not an array type."""
    return annotation is not Array and not hasattr(annotation, "array_type")


def _same_dimension(names: list[str], args: tuple[Any, ...]) -> None:
    """Event sizes never broadcast: `x` of shape (n, 1) is no vector of two dimensions."""
    whose, dim = names[0], args[0].dim
    for name, x in zip(names, args, strict=True):
        if not is_structure(x):
            _checks.rank_at_least(name, x, 1)
            _checks.same_dim(name, x.shape[-1], x.shape, dim, whose)
        elif x.dim != dim:
            raise ValueError(f"{name} must have dimension {dim} like {whose}, got {x.dim}.")


def _squeezed(x: Array, batch: tuple[int, ...]) -> Array:
    return jnp.squeeze(x, tuple(i for i, size in enumerate(batch) if size == 1))


def _new_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: jax.tree.map(lambda x: x[None], function(*args))
