"""The examples use JAX as its users do, with its own promotion rules (optax needs them)."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def usual_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
