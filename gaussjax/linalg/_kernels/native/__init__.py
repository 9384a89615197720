"""C++ kernels for many small matrices on a CPU, if the library was built with a compiler.

`call` takes one array for each operand, with the batch axis or, if the batch shares it, without. An
exported program (`jax.export`) contains the plain computation in place of the kernel, so it runs
without the library.
"""

import ctypes
import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array

from gaussjax.linalg._kernels.native.build import LIBRARY, sources
from gaussjax.linalg._kernels.platforms import Shapes, results

VERSION = 1  # of the kernels' operands: programs in a compilation cache name it
SWITCH = "GAUSSJAX_NATIVE"
DTYPES = ("float32", "float64")

Function = Callable[..., Any]


@functools.cache
def kernels() -> tuple[str, ...]:
    """Names of the native kernels that CPUs use, in this process. O(1)

    Empty if gaussjax was installed without a C++ compiler, or if the environment variable
    `GAUSSJAX_NATIVE` is "0" at the first call. Results are the same to rounding; without kernels
    batches take longer.

    >>> all(isinstance(name, str) for name in kernels())
    True
    """
    path = Path(__file__).parent / LIBRARY
    if os.environ.get(SWITCH) == "0" or not path.exists():
        return ()
    try:
        return _registered(ctypes.CDLL(str(path)))
    except (OSError, AttributeError, RuntimeError) as error:  # for another machine, or another JAX
        warnings.warn(f"gaussjax goes on without its native kernels: {error}", stacklevel=2)
        return ()


def _registered(library: ctypes.CDLL) -> tuple[str, ...]:
    library.gaussjax_name.restype = library.gaussjax_sources.restype = ctypes.c_char_p
    library.gaussjax_handler.restype = ctypes.c_void_p
    if library.gaussjax_sources().decode() != sources():
        raise RuntimeError("they were built from other sources, install gaussjax again")
    names = []
    for index in range(library.gaussjax_kernel_count()):
        name = library.gaussjax_name(index).decode()
        handler = jax.ffi.pycapsule(library.gaussjax_handler(index))
        jax.ffi.register_ffi_target(_target(name), handler, platform="cpu")
        names.append(name)
    return tuple(names)


def call(
    name: str, plain: Function, shapes: Shapes, *arrays: Array, order: tuple[int, ...] = ()
) -> list[Array]:
    """The kernel's results, of `shapes(*arrays)`; `plain` computes the same in JAX alone."""
    return _native.bind(*arrays, name=name, plain=plain, shapes=shapes, order=order)


def takes(name: str | None, *arrays: Array) -> bool:
    """Whether there is such a kernel, for arrays of one dtype."""
    dtypes = {x.dtype.name for x in arrays}
    return name in kernels() and len(dtypes) == 1 and dtypes <= set(DTYPES)


def _target(name: str) -> str:
    return f"gaussjax.{name}.{VERSION}"


_native = Primitive("gaussjax_native")
_native.multiple_results = True


@_native.def_impl
def _(*arrays: Array, **parameters: Any) -> list[Array]:
    with jax.disable_jit(False):  # otherwise it would recurse for ever
        return _compiled(**parameters)(*arrays)


@functools.cache
def _compiled(**parameters: Any) -> Function:
    return jax.jit(functools.partial(_native.bind, **parameters))


@_native.def_abstract_eval
def _(*avals: Any, shapes: Shapes, **_: Any) -> Any:
    return results(shapes, *avals)


def _lower_plain(ctx: Any, *operands: Any, plain: Function, **_: Any) -> Any:
    return mlir.lower_fun(plain, multiple_results=True)(ctx, *operands)


def _lower(
    ctx: Any, *operands: Any, name: str, plain: Function, order: tuple[int, ...], **_: Any
) -> Any:
    if ctx.module_context.lowering_parameters.for_export:
        return _lower_plain(ctx, *operands, plain=plain)
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in ctx.avals_out]
    attributes = {"order": np.array(order, np.int64)} if order else {}
    kernel = functools.partial(jax.ffi.ffi_call(_target(name), results), **attributes)
    return mlir.lower_fun(kernel, multiple_results=True)(ctx, *operands)


mlir.register_lowering(_native, _lower, platform="cpu")
mlir.register_lowering(_native, _lower_plain)
