"""One computation for CPUs and another elsewhere, neither traced before a program is lowered.

`lax.platform_dependent` traces both in every program, which for unrolled code takes as long as
compiling the one that is used.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array

Function = Callable[..., Any]
Shapes = Callable[..., Sequence[Any]]


def by_platform(*, cpu: Function, elsewhere: Function, shapes: Shapes) -> Function:
    """`cpu` on CPUs, `elsewhere` on GPUs and TPUs; both return lists of arrays like `shapes`."""

    def chosen(*arrays: Array) -> list[Array]:
        return _by_platform.bind(*arrays, cpu=cpu, elsewhere=elsewhere, shapes=shapes)

    return chosen


def results(shapes: Shapes, *avals: Any) -> Any:
    """Types of arrays of these shapes; in a `shard_map` they vary as the operands do."""
    return _results(shapes, jax.sharding.get_abstract_mesh(), *avals)


@functools.lru_cache(4096)
def _results(shapes: Shapes, _: Any, *avals: Any) -> Any:
    def similar(*arrays: Array) -> list[Array]:
        mixed = functools.reduce(jnp.add, map(jnp.sum, arrays))  # on the same mesh
        return [jnp.broadcast_to(mixed.astype(x.dtype), x.shape) for x in shapes(*arrays)]

    return jax.make_jaxpr(similar)(*avals).out_avals


_by_platform = Primitive("gaussjax_by_platform")
_by_platform.multiple_results = True


@_by_platform.def_impl
def _(*arrays: Array, **parameters: Any) -> list[Array]:
    with jax.disable_jit(False):  # otherwise it would recurse for ever
        return _compiled(**parameters)(*arrays)


@functools.cache
def _compiled(**parameters: Any) -> Function:
    return jax.jit(functools.partial(_by_platform.bind, **parameters))


@_by_platform.def_abstract_eval
def _(*avals: Any, shapes: Shapes, **_: Any) -> Any:
    return results(shapes, *avals)


def _lower(chosen: str) -> Function:
    def lower(ctx: Any, *operands: Any, **parameters: Any) -> Any:
        return mlir.lower_fun(parameters[chosen], multiple_results=True)(ctx, *operands)

    return lower


mlir.register_lowering(_by_platform, _lower("cpu"), platform="cpu")
mlir.register_lowering(_by_platform, _lower("elsewhere"))
