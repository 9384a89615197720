"""Settings of every test: strict promotion, so that nothing depends on JAX guessing."""

import itertools

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_memory():
    """Forgets what was compiled every thirty tests: 1,500 of them would keep 6 GB a worker."""
    yield
    if next(TESTS) % 30 == 0:
        jax.clear_caches()
