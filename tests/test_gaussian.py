"""Densities, samples and moments against scipy, and the statistics of samples."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from catalogue import STRUCTURES, random_lower
from hypothesis import given, settings
from hypothesis import strategies as st

import gaussjax as gj


def make(kind, d, seed=0):
    cov, dense = STRUCTURES[kind](np.random.default_rng(seed), d, np.float32)
    mean = np.random.default_rng(seed + 1).normal(size=d).astype(np.float32)
    return gj.Gaussian(jnp.asarray(mean), cov), mean.astype(float), dense


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("d", [1, 4, 17])
def test_densities_agree_with_scipy(kind, d):
    g, mean, dense = make(kind, d)
    reference = scipy.stats.multivariate_normal(mean, dense)
    x = np.random.default_rng(2).normal(size=(5, d)).astype(np.float32)
    np.testing.assert_allclose(gj.log_prob(g, x), np.reshape(reference.logpdf(x), 5), rtol=2e-5)
    np.testing.assert_allclose(gj.entropy(g), reference.entropy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_score_is_the_gradient_of_log_prob(kind):
    g, _, _ = make(kind, 4)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(gj.score(g, x), jax.grad(gj.log_prob, 1)(g, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("d", [3, 17])
def test_sample_colors_jax_random_normal(kind, d):
    g, _, _ = make(kind, d)
    key = jax.random.key(1)
    noise = jax.random.normal(key, (7, g.cov.noise_dim))
    if g.cov.noise_dim == d:
        np.testing.assert_allclose(
            gj.sample(key, g, (7,)), gj.color(g, noise), rtol=1e-6, atol=1e-6
        )
    else:  # by a root with more columns
        expected = g.mean[None] + jax.vmap(g.cov.draw)(noise)
        np.testing.assert_allclose(gj.sample(key, g, (7,)), expected, rtol=1e-5, atol=1e-6)


def test_a_sample_is_the_mean_plus_the_factor_times_the_noise_to_the_last_bits():
    """|x − (μ + Lε)| ≤ (d + 2) u (|μ| + |L||ε|), componentwise: no TF32 anywhere."""
    for d in (2, 16, 40):
        lower = random_lower(np.random.default_rng(0), d)
        mean = np.random.default_rng(1).normal(size=d).astype(np.float32)
        noise = np.asarray(jax.random.normal(jax.random.key(0), (100, d)))
        x = gj.color(gj.from_cholesky(mean, lower), noise)
        exact = mean.astype(float) + noise.astype(float) @ lower.astype(float).T
        bound = (d + 2) * 2.0**-24 * (np.abs(mean) + np.abs(noise) @ np.abs(lower).T)
        assert np.all(np.abs(np.asarray(x, float) - exact) <= bound)


def statistic_of(color, lower, n, key):
    """Largest deviate of the means, squares and products of whitened draws.

    A wrong factor inflates or deflates the squares, a wrong orientation correlates the products.
    """
    d = len(lower)
    x = np.asarray(color(jax.random.normal(key, (n, d))), float)
    white = np.linalg.solve(lower.astype(float), x.T).T
    squares = (np.sum(white**2, axis=0) - n) / np.sqrt(2 * n)
    products = (white.T @ white)[np.tril_indices(d, -1)] / np.sqrt(n)
    return np.max(np.abs(np.concatenate([squares, products, white.sum(axis=0) / np.sqrt(n)])))


LOWER = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 1.2]], np.float32)
THRESHOLD = 6.0  # two-sided: 2e-9 for each of the nine deviates


def test_samples_have_the_stated_law():
    g = gj.from_cholesky(jnp.zeros(3), LOWER)
    assert statistic_of(lambda e: gj.color(g, e), LOWER, 50_000, jax.random.key(0)) < THRESHOLD
    symmetric = lambda e: gj.color_symmetric(g, e)  # noqa: E731  # one line says it
    assert statistic_of(symmetric, LOWER, 50_000, jax.random.key(1)) < THRESHOLD


@pytest.mark.parametrize(
    "defect",
    [
        lambda e: e @ LOWER,  # Lᵀ for L
        lambda e: e @ (LOWER @ LOWER.T),  # no square root
        lambda e: 1.05 * e @ LOWER.T,  # a 5 % scale error
        lambda e: jnp.concatenate([e[:, :1]] * 3, axis=1) @ LOWER.T,  # one key for three normals
    ],
    ids=["transposed", "no root", "scale", "key reuse"],
)
def test_the_sampling_statistic_detects_defects(defect):
    assert statistic_of(defect, LOWER, 50_000, jax.random.key(0)) > THRESHOLD


def test_log_prob_of_a_sample_needs_no_solve():
    g, _, _ = make("cholesky", 5)
    x, value = gj.sample_and_log_prob(jax.random.key(0), g, (4,))
    np.testing.assert_allclose(value, gj.log_prob(g, x), rtol=1e-5)

    def calls_a_solver(function):
        text = jax.jit(function).lower(jax.random.key(0)).compile().as_text()
        return "trsm" in text or "gaussjax.inv_quad" in text

    large = make("cholesky", 80)[0]
    assert not calls_a_solver(lambda key: gj.sample_and_log_prob(key, large, (4,)))
    assert calls_a_solver(lambda key: gj.log_prob(large, gj.sample(key, large, (4,))))


def test_reparameterised_gradients_reach_mean_and_factor():
    """d/dμ of Σx is the number of samples; d/dL is the noise, below the diagonal."""
    key, n = jax.random.key(3), 6
    noise = jax.random.normal(key, (n, 3))

    def total(mean, lower):
        return jnp.sum(gj.sample(key, gj.Gaussian(mean, gj.Cholesky(lower)), (n,)))

    mean_gradient, lower_gradient = jax.grad(total, (0, 1))(jnp.zeros(3), jnp.asarray(LOWER))
    np.testing.assert_allclose(mean_gradient, np.full(3, n))
    expected = np.tril(np.broadcast_to(noise.sum(axis=0), (3, 3)))
    np.testing.assert_allclose(lower_gradient, expected, rtol=1e-5, atol=1e-6)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3]), max_size=2),
    st.lists(st.sampled_from([1, 2, 3]), max_size=2),
    st.lists(st.sampled_from([1, 2, 3]), max_size=2),
)
def test_leading_axes_broadcast_like_numpy(mean_batch, factor_batch, x_batch):
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(*mean_batch, 2)).astype(np.float32)
    scale = rng.uniform(0.5, 2.0, (*factor_batch, 2)).astype(np.float32)
    x = rng.normal(size=(*x_batch, 2)).astype(np.float32)
    try:
        shape = np.broadcast_shapes(mean_batch, factor_batch, x_batch)
    except ValueError:
        with pytest.raises(ValueError, match="must broadcast"):
            gj.log_prob(gj.Gaussian(jnp.asarray(mean), gj.Diagonal(jnp.asarray(scale))), x)
        return
    g = gj.Gaussian(jnp.asarray(mean), gj.Diagonal(jnp.asarray(scale)))
    expected = scipy.stats.norm(mean, scale).logpdf(x).sum(axis=-1)
    value = gj.log_prob(g, x)
    chex.assert_shape(value, shape)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_moments_have_the_whole_batch_shape(kind):
    g, _, dense = make(kind, 3)
    g = gj.Gaussian(jnp.stack([g.mean, g.mean]), g.cov)
    assert gj.batch_shape(g) == (2,)
    assert gj.dim(g) == 3
    chex.assert_shape([gj.mean(g), gj.variance(g), gj.stddev(g)], (2, 3))
    chex.assert_shape([gj.covariance(g), gj.precision(g)], (2, 3, 3))
    np.testing.assert_allclose(gj.covariance(g)[1], dense, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gj.stddev(g)[0], np.sqrt(np.diag(dense)), rtol=1e-4)


def test_constructors_agree_on_one_gaussian():
    dense = np.array([[4.0, 0.0], [0.0, 9.0]], np.float32)
    mean = np.zeros(2, np.float32)
    x = np.array([1.0, -2.0], np.float32)
    gaussians = [
        gj.from_covariance(mean, dense),
        gj.from_precision(mean, np.linalg.inv(dense)),
        gj.from_cholesky(mean, np.sqrt(dense)),
        gj.from_scale(mean, np.array([2.0, 3.0], np.float32)),
        gj.from_variance(mean, np.array([4.0, 9.0], np.float32)),
    ]
    values = [float(gj.log_prob(g, x)) for g in gaussians]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
    for p, q in itertools.product(gaussians, repeat=2):
        assert abs(gj.kl_divergence(p, q)) <= 1e-12
    isotropic = gj.from_scale(np.zeros((5, 2), np.float32), 2.0)
    assert isinstance(isotropic.cov, gj.Isotropic)
    assert gj.batch_shape(isotropic) == (5,)


def test_log_prob_survives_what_overflows():
    g = gj.standard(2)
    assert gj.log_prob(g, jnp.array([jnp.inf, 0.0])) == -jnp.inf
    assert gj.log_prob(g, jnp.array([1e30, 0.0])) == -jnp.inf
    assert jnp.isnan(gj.log_prob(g, jnp.array([jnp.nan, jnp.inf])))
    batch = jnp.array([[0.0, 0.0], [jnp.inf, 1.0]])
    gradient = jax.grad(
        lambda x: jnp.sum(jnp.where(jnp.isinf(x), 0.0, gj.log_prob(g, x)[:, None]))
    )(batch)
    assert jnp.all(jnp.isfinite(gradient))
