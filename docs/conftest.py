"""The page on other libraries runs with the promotion of types and ranks that they rely on."""

import jax
import pytest


@pytest.fixture(autouse=True)
def promotion_as_the_libraries_expect(request):
    """Whatever the tests before have set."""
    if request.path.name != "libraries.md":
        yield
        return
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
