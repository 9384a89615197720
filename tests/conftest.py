"""Settings of every test: strict promotion, so that nothing depends on JAX guessing."""

import itertools
import os
import tempfile

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

TESTS = itertools.count(1)


def pytest_configure(config):
    """Lets all processes of a run, workers and those that tests start, compile a program once."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # of a worker; or yours, to be kept
        return
    folder = tempfile.TemporaryDirectory(prefix="gaussjax-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    settings = {
        "jax_compilation_cache_dir": folder.name,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(autouse=True)
def bounded_memory():
    """Forgets what was compiled every thirty tests: 1,500 of them would keep 6 GB a worker."""
    yield
    if next(TESTS) % 30 == 0:
        jax.clear_caches()
