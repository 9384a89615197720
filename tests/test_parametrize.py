"""Vectors to factors and back, to rounding, for anything a network may emit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gaussjax as gj
from gaussjax import parametrize as pz

PAIRS = {
    "lower": (pz.lower_from_vector, pz.vector_from_lower),
    "scaled": (pz.scaled_lower_from_vector, pz.vector_from_scaled_lower),
}
DIAGONALS = [pz.Exp(), pz.Softplus()]
vectors = hnp.arrays(np.float32, 6, elements=st.floats(-80, 80, width=32))


@pytest.mark.parametrize("diagonal", DIAGONALS, ids=["exp", "softplus"])
@pytest.mark.parametrize("form", PAIRS)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(vector=vectors)
def test_round_trip_is_exact_to_rounding_for_inputs_up_to_80(form, diagonal, vector):
    """eˣ at |x| = 80 has the relative error 80u, which the logarithm makes absolute again."""
    forward, backward = PAIRS[form]
    vector = np.where(np.abs(vector) < 1e-30, 0.0, vector).astype(np.float32)
    lower = forward(vector, diagonal=diagonal)
    assert np.all(np.isfinite(lower))
    diagonal_entries = np.diagonal(lower)
    assert np.all(diagonal_entries > 0)
    np.testing.assert_allclose(backward(lower, diagonal=diagonal), vector, rtol=2e-6, atol=2e-6)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(vector=hnp.arrays(np.float32, 6, elements=st.floats(-80, 80, width=32)))
def test_any_vector_gives_a_correlation_factor_and_back(vector):
    lower = np.asarray(pz.correlation_from_vector(vector))
    matrix = lower.astype(float) @ lower.T.astype(float)
    np.testing.assert_allclose(np.diag(matrix), 1.0, rtol=1e-6)
    assert np.all(np.diagonal(lower) > 0)
    np.testing.assert_allclose(pz.vector_from_correlation(lower), vector, rtol=1e-6, atol=1e-30)


def test_the_correlation_map_reaches_every_correlation_matrix():
    correlation = np.array([[1.0, 0.9, -0.3], [0.9, 1.0, 0.0], [-0.3, 0.0, 1.0]], np.float32)
    lower = gj.linalg.cholesky(correlation)
    again = pz.correlation_from_vector(pz.vector_from_correlation(lower))
    np.testing.assert_allclose(again, lower, atol=1e-6)


@pytest.mark.parametrize("diagonal", [pz.Exp(0.1), pz.Softplus(0.1)], ids=["exp", "softplus"])
def test_the_floor_keeps_the_diagonal_away_from_zero(diagonal):
    lower = pz.lower_from_vector(jnp.full(3, -80.0), diagonal=diagonal)
    assert jnp.all(jnp.diagonal(lower) >= 0.1)
    back = pz.vector_from_lower(
        pz.lower_from_vector(jnp.ones(3), diagonal=diagonal), diagonal=diagonal
    )
    np.testing.assert_allclose(back, np.ones(3), rtol=1e-5)


def test_the_scaled_form_separates_units_from_shape():
    vector = jnp.arange(6.0) / 10
    lower = pz.scaled_lower_from_vector(vector)
    rescaled = pz.scaled_lower_from_vector(vector.at[2].add(jnp.log(10.0)))  # second scale tenfold
    np.testing.assert_allclose(rescaled, lower * np.array([[1.0], [10.0], [1.0]]), rtol=1e-5)


def test_a_network_head_becomes_a_gaussian_with_gradients():
    size = pz.gaussian_size(3)
    assert size == 9
    head = jax.random.normal(jax.random.key(0), (5, size))

    def loss(head):
        return jnp.mean(gj.kl_divergence(pz.gaussian_from_vector(head, 3), gj.standard(3)))

    g = pz.gaussian_from_vector(head, 3)
    assert gj.batch_shape(g) == (5,)
    assert g.cov.lower.shape == (5, 3, 3)
    assert jnp.all(jnp.isfinite(jax.grad(loss)(head)))
    assert jnp.all(jnp.isfinite(jax.grad(loss)(jnp.full((5, size), -40.0))))


@pytest.mark.parametrize("form", PAIRS)
def test_packing_works_under_jit_and_vmap_and_in_batches(form):
    forward, backward = PAIRS[form]
    vector = jax.random.normal(jax.random.key(0), (4, 2, 6))
    lower = forward(vector)
    assert lower.shape == (4, 2, 3, 3)
    np.testing.assert_allclose(jax.vmap(jax.jit(forward))(vector), lower, rtol=1e-6)
    np.testing.assert_allclose(backward(lower), vector, rtol=1e-5, atol=1e-6)
