"""Programs of which a test wants the algebra and not the speed."""

import functools

import jax

# Takes a third of the time to compile. What a program gives in float32 when it is compiled as
# usual has tests of its own.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)
