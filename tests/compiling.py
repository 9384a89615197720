"""Programs of which a test wants the algebra and not the speed."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax

# They take a third of the time to compile. What a program gives in float32 when it is compiled as
# usual has tests of its own. JAX 0.12 has one of the two options no more.
OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if tuple(map(int, jax.__version__.split(".")[:2])) < (0, 12):
    OPTIONS["xla_cpu_use_fusion_emitters"] = False

quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)


def eagerly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Operation by operation: a hundred small programs, which most pairs of structures share."""

    def run(*args: Any) -> Any:
        with jax.disable_jit():
            return function(*args)

    return run


# In place of a module's `jax`: what is compiled elsewhere meanwhile is compiled as usual.
quick_jax = types.SimpleNamespace(**{**vars(jax), "jit": quick_jit})
QUICK_FLAGS = [f"--{name}={str(value).lower()}" for name, value in OPTIONS.items()]
