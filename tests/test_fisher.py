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
MANY = ["kronecker", "root"]  # many steps move the law alike: it is one of them


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


@pytest.mark.parametrize(("d", "r"), [(5, 0), (8, 2), (30, 3)])
def test_a_natural_gradient_of_low_rank_undoes_the_information(d, r):
    """F t has Σ⁻¹dΣΣ⁻¹ times the derivative of Σ; a row with little noise has a leverage near 1."""
    rng = np.random.default_rng(0)
    scale, factor = rng.uniform(0.5, 2, d).astype("f4"), rng.normal(size=(d, r)).astype("f4")
    scale[1] = 0.05
    dscale, dfactor = rng.normal(size=d), rng.normal(size=(d, r))

    def change(dscale, dfactor):
        half = np.diag(scale * dscale) + dfactor @ factor.T.astype(float)
        return half + half.T

    inverse = np.linalg.inv(np.diag(scale.astype(float) ** 2) + factor @ factor.T.astype(float))
    slope = inverse @ change(dscale, dfactor) @ inverse
    parts = (np.diag(slope) * scale, slope @ factor)
    g, cotangent = (
        gj.Gaussian(jnp.zeros(d), gj.LowRank(*(jnp.asarray(x, jnp.float32) for x in both)))
        for both in ((scale, factor), parts)
    )
    step = gj.natural_gradient(g, cotangent).cov
    np.testing.assert_allclose(step.scale, dscale, rtol=1e-4, atol=1e-5)
    moved = change(np.asarray(step.scale, float), np.asarray(step.factor, float))
    np.testing.assert_allclose(moved, change(dscale, dfactor), rtol=1e-4, atol=1e-4)


def test_a_low_rank_law_that_is_invalid_has_no_step_and_spoils_no_other():
    scale = jnp.stack([jnp.ones(8), -jnp.ones(8)])
    factor = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 2)), jnp.float32)
    g = gj.Gaussian(jnp.zeros((2, 8)), gj.LowRank(scale, factor))
    one = jax.tree.map(lambda x: jnp.ones((2, *x.shape[1:])), g)
    wide = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape[1:])), g)
    for leaf in jax.tree.leaves(gj.natural_gradient(wide, one)):
        assert np.all(np.isfinite(leaf[0]))
        assert np.all(np.isnan(leaf[1]))


def test_structures_that_are_not_identified_are_refused_with_a_sentence():
    for cov in (
        gj.LowRank(jnp.ones(3), jnp.ones((3, 2))),  # more numbers than Σ has
        gj.Sum(gj.Diagonal(jnp.ones(3)), gj.Toeplitz(jnp.array([2.0, 1.0, 0.5]))),
    ):
        g = gj.Gaussian(jnp.zeros(3), cov)
        with pytest.raises(TypeError, match=f"no closed form for {type(cov).__name__}"):
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
