"""One Gaussian over eight devices: the values of one device, an eighth of its memory."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import random_lower
from compiling import quick_jax
from jax.sharding import AxisType
from processes import on_eight_devices

import gaussjax as gj
from gaussjax.linalg import sharded
from gaussjax.testing import check_covariance

PROGRAM = Path(__file__).with_name("sharded_cholesky.py")
AXES = [
    pytest.param(axes, marks=pytest.mark.xdist_group(f"one over eight, {axes}"))
    for axes in ("Auto", "Explicit")
]


def run(*arguments):
    """What `sharded_cholesky.py` found in a process of its own, that has eight devices."""
    return json.loads(on_eight_devices(PROGRAM, *arguments, timeout=280))


@pytest.fixture(scope="module", params=AXES)
def compared(request):
    return run("compare", request.param)


@pytest.fixture(scope="module")
def measured():
    return run("measure")


def mesh(axis_type=AxisType.Auto):
    return jax.make_mesh((1,), ("rows",), axis_types=(axis_type,))


def test_values_and_derivatives_are_those_of_one_device(compared):
    assert len(compared["errors"]) == 15
    assert {name: e for name, e in compared["errors"].items() if not e < 3e-6} == {}
    assert compared["made"] < 3e-6


def test_results_that_are_matrices_stay_in_rows(compared):
    d = compared["d"]
    assert compared["shards"] == [[d // 8, d]]


def test_no_device_receives_more_at_once_than_its_share(compared):
    assert len(compared["collectives"]) > 5
    assert max(compared["collectives"]) <= compared["d"] ** 2 // 8


def test_a_matrix_that_is_not_positive_definite_is_refused_or_nan_everywhere(compared):
    assert compared["refused"].startswith("matrix must be positive definite to working precision")
    assert compared["nans"] == compared["d"] ** 2


def test_memory_falls_with_the_number_of_devices(measured):
    for name, found in measured.items():
        assert found["shares"][-1] < 8 / 6 * found["shares"][0], name


def test_gradients_take_a_small_multiple_of_a_share(measured):
    # Arguments are two matrices of these, results as many as the gradient has.
    assert measured["gradient of log_prob"]["shares"][-1] < 5
    assert measured["gradient of cholesky"]["shares"][-1] < 9
    assert max(measured["gradient of kl"]["shares"]) < 10


def test_the_program_does_not_grow_with_the_dimension(measured):
    found = measured["gradient of kl"]
    assert found["at twice the size"] == len(found["collectives"])


def test_on_one_device_it_passes_the_conformance_suite(monkeypatch):
    monkeypatch.setattr("gaussjax.testing.jax", quick_jax)  # for its values alone
    lower = random_lower(np.random.default_rng(6), 6)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        check_covariance(
            lambda: gj.ShardedCholesky(jnp.asarray(lower), "rows"),
            lower.astype(float) @ lower.T.astype(float),
        )


def test_what_stands_above_the_diagonal_is_not_read():
    rng = np.random.default_rng(0)
    lower, x = random_lower(rng, 8), rng.normal(size=8).astype(np.float32)
    garbage = np.where(np.triu(np.ones((8, 8), bool), 1), np.nan, lower)

    def of(lower):
        g = gj.Gaussian(jnp.zeros(8), gj.ShardedCholesky(lower, "rows"))
        color, kl = jnp.sum(gj.color(g, x)), gj.kl_divergence(g, gj.standard(8))
        return gj.log_prob(g, x) + color + kl + gj.kl_divergence(gj.standard(8), g)

    with jax.set_mesh(mesh()):
        value, gradient = jax.jit(jax.value_and_grad(of))(garbage)
        expected = jax.jit(jax.value_and_grad(of))(lower)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(gradient, np.tril(expected[1]))


def test_kl_is_zero_with_a_zero_gradient_between_equal_ones():
    lower = jnp.asarray(random_lower(np.random.default_rng(0), 8))

    def kl(a, b):
        p, q = (gj.Gaussian(jnp.zeros(8), gj.ShardedCholesky(x, "rows")) for x in (a, b))
        return gj.kl_divergence(p, q)

    with jax.set_mesh(mesh()):
        value, gradients = jax.jit(jax.value_and_grad(kl, (0, 1)))(lower, lower)
    assert value == 0
    np.testing.assert_array_equal(gradients, np.zeros((2, 8, 8)))


def test_errors_name_the_mesh_and_the_sizes():
    g = gj.Gaussian(jnp.zeros(2), gj.ShardedCholesky(jnp.eye(2), "rows"))
    with pytest.raises(ValueError, match="axis must name an axis"):
        gj.log_prob(g, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"axis must name an axis .* got 'rows' for \("):
        sharded.cholesky(jnp.eye(2), axis="rows")
    with jax.set_mesh(mesh()):
        with pytest.raises(ValueError, match=r"got 'columns' for \('rows',\)"):
            gj.entropy(gj.Gaussian(jnp.zeros(2), gj.ShardedCholesky(jnp.eye(2), "columns")))
        with pytest.raises(ValueError, match="divisor from 16 to 256, got 257 / 1"):
            sharded.solve_lower(jnp.eye(257), jnp.zeros(257), axis="rows")
        with pytest.raises(ValueError, match="matrix must be symmetric"):
            gj.from_sharded_covariance([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], axis="rows")
