"""The Fisher information in stored parameters, against its definition by moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES
from compiling import quick_jit
from jax.flatten_util import ravel_pytree

import gaussjax as gj

IDENTIFIED = ["isotropic", "diagonal", "cholesky", "precision", "circulant", "banded_precision"]
IDENTIFIED += ["stacked_blocks"]
MANY = ["kronecker", "root"]  # arrays give one law: a step is one of those that move it so


def fisher_of(g):
    """∂μᵀΛ∂μ + ½ tr(Λ ∂Σ Λ ∂Σ) in all stored numbers."""
    theta, unravel = ravel_pytree(g)
    precision = gj.precision(g)
    mean = jax.jacfwd(lambda t: unravel(t).mean)(theta)
    sigma = jax.jacfwd(lambda t: gj.covariance(unravel(t)))(theta)
    scaled = jnp.einsum("ab,bck->ack", precision, sigma)
    return mean.T @ precision @ mean + 0.5 * jnp.einsum("abk,bal->kl", scaled, scaled)


@pytest.mark.parametrize(
    "kind", ["isotropic", "cholesky", "precision", "circulant", "kronecker", "toeplitz"]
)
def test_a_fisher_vector_product_is_that_of_the_matrix_of_moments(kind):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        g = gj.Gaussian(jnp.ones(4), STRUCTURES[kind](rng, 4, np.float64)[0])
        tangent = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), g)
        got = ravel_pytree(quick_jit(gj.fisher_vector_product)(g, tangent))[0]
        expected = quick_jit(fisher_of)(g) @ ravel_pytree(tangent)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", IDENTIFIED + MANY)
def test_a_natural_gradient_undoes_the_product(kind):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        g = gj.Gaussian(jnp.ones(6), STRUCTURES[kind](rng, 6, np.float64)[0])
        loss = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), g)
        # a cotangent is what a product gives: what is not read has none
        cotangent = quick_jit(gj.fisher_vector_product)(g, loss)
        step = quick_jit(gj.natural_gradient)(g, cotangent)
        again = quick_jit(gj.fisher_vector_product)(g, step)
        for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(cotangent), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


def test_natural_gradients_take_batches_and_go_downhill():
    lower = jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])
    g = gj.Gaussian(jnp.ones((2, 3)), gj.Cholesky(lower))
    target = gj.standard(3)

    def loss(g):
        return jnp.sum(gj.kl_divergence(g, target))

    for _ in range(30):
        step = gj.natural_gradient(g, jax.grad(loss)(g))
        g = jax.tree.map(lambda x, s: x - 0.3 * s, g, step)
    assert loss(g) < 1e-3


def test_structures_that_are_not_identified_are_refused_with_a_sentence():
    g = gj.from_low_rank(jnp.zeros(3), jnp.ones(3), jnp.ones((3, 1)))
    with pytest.raises(TypeError, match="no closed form for LowRank"):
        gj.natural_gradient(g, g)
    with pytest.raises(TypeError, match="must have the structure of g, Diagonal, got Cholesky"):
        gj.fisher_vector_product(
            gj.from_scale(jnp.zeros(2), jnp.ones(2)), gj.from_cholesky(jnp.zeros(2), jnp.eye(2))
        )


def test_changes_of_other_shapes_are_refused_with_a_sentence():
    g, wide = (gj.from_low_rank(jnp.zeros(3), jnp.ones(3), jnp.ones((3, n))) for n in (1, 2))
    with pytest.raises(ValueError, match="tangent must have arrays of the shapes"):
        gj.fisher_vector_product(g, wide)


def test_singular_laws_have_no_fisher_information():
    g = gj.from_scale(jnp.zeros(2), jnp.array([0.0, 1.0]))
    for function in (gj.fisher_vector_product, gj.natural_gradient):
        assert all(np.all(np.isnan(x)) for x in jax.tree.leaves(function(g, g)))
