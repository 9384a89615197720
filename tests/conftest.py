"""Settings of every test: strict promotion, so that nothing depends on JAX guessing."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
