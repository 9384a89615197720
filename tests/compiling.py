"""Programs of which the tests want values and not speed."""

import jax

EFFORT = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def quick_jit(function):
    """`jax.jit` that takes a third of the time to compile, for the algebra of a function.

    What a program gives in float32 when it is compiled as usual has tests of its own.
    """
    return jax.jit(function, compiler_options=EFFORT)
