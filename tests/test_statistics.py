"""Correlations, regions, criteria; the Student t; conjugate priors: against scipy and NumPyro."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from compiling import quick_jit
from jax.flatten_util import ravel_pytree
from oracle import mpmath  # of 60 digits

import gaussjax as gj
from gaussjax import normal_inverse_wishart as niw
from gaussjax import parametrize as pz
from gaussjax import student_t

RNG = np.random.default_rng(0)
ROOT = np.tril(RNG.standard_normal((4, 4))) + 2 * np.eye(4)
SIGMA, MU = ROOT @ ROOT.T, RNG.standard_normal(4)
G = gj.from_covariance(MU.astype(np.float32), SIGMA.astype(np.float32))


def test_correlations_are_numpys_and_partial_ones_those_of_regressions():
    sd = np.sqrt(np.diag(SIGMA))
    np.testing.assert_allclose(gj.correlation(G), SIGMA / np.outer(sd, sd), atol=1e-6)
    rest = SIGMA[:2, :2] - SIGMA[:2, 2:] @ np.linalg.solve(SIGMA[2:, 2:], SIGMA[2:, :2])
    expected = rest[0, 1] / np.sqrt(rest[0, 0] * rest[1, 1])
    np.testing.assert_allclose(gj.partial_correlation(G)[0, 1], expected, atol=1e-6)
    for found in (gj.correlation(G), gj.partial_correlation(G)):
        assert (found == found.T).all()
        assert (jnp.diagonal(found) == 1).all()
    flat = gj.correlation(gj.from_scale([0.0, 0.0], [1.0, 0.0]))
    assert np.isnan(flat[1]).all()
    assert flat[0, 0] == 1


def test_a_region_has_the_radius_of_chi_square_and_axes_of_the_covariance():
    region = gj.confidence_region(G, level=0.9)
    np.testing.assert_allclose(region.radius**2, st.chi2.ppf(0.9, 4), rtol=1e-5)
    axes = np.asarray(region.axes, np.float64)
    np.testing.assert_allclose(axes @ axes.T / region.radius**2, SIGMA, rtol=1e-4, atol=1e-4)
    tips = (region.center[:, None] + region.axes).T
    np.testing.assert_allclose(gj.mahalanobis(G, tips), region.radius**2, rtol=1e-4)
    radii = gj.confidence_region(G, level=jnp.array([0.0, 0.5, 1.0, 1.5])).radius
    np.testing.assert_allclose(radii, [0, st.chi2.ppf(0.5, 4) ** 0.5, np.inf, np.nan], rtol=1e-5)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        gj.confidence_region(G, level=95)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        gj.outliers(G, MU, level=95)


@pytest.mark.parametrize("d", [1, 2, 7, 100])
def test_quantiles_of_chi_square_are_scipys(d):
    levels = np.array([1e-4, 0.1, 0.5, 0.99, 0.9999], np.float32)
    found = gj.confidence_region(gj.standard(d), level=levels).radius ** 2
    np.testing.assert_allclose(found, st.chi2.ppf(levels.astype(np.float64), d), rtol=3e-5)


def test_outliers_are_as_many_as_the_level_says():
    x = gj.sample(jax.random.key(0), G, (20_000,))
    share = float(gj.outliers(G, x, level=0.95).mean())
    assert abs(share - 0.05) < 5 * (0.05 * 0.95 / 20_000) ** 0.5
    assert gj.outliers(G, x[0] + 100, level=0.999)
    rows = np.array(x[:3])
    rows[1, 0] = np.nan
    assert gj.outliers(G, rows, level=1.0).tolist() == [False, True, False]
    assert gj.outliers(G, x[:3], level=np.array([np.nan, 2.0, 1.0])).tolist() == [True, True, False]


def test_criteria_are_those_of_the_textbook():
    x = RNG.standard_normal((50, 4)).astype(np.float32)
    x[7] = np.nan
    total = st.multivariate_normal(MU, SIGMA).logpdf(np.delete(x, 7, 0)).sum()
    mask = np.arange(50) != 7
    np.testing.assert_allclose(gj.aic(G, x, mask=mask), 2 * 14 - 2 * total, rtol=1e-5)
    expected = 14 * np.log(49) - 2 * total
    np.testing.assert_allclose(gj.bic(G, x, mask=mask), expected, rtol=1e-5)
    both = gj.bic(G, np.stack([x, x[::-1]]), mask=np.stack([mask, mask[::-1]]), parameters=0)
    np.testing.assert_allclose(both, [-2 * total] * 2, rtol=1e-5)
    assert np.isnan(gj.aic(G, x))


COUNTED = {
    "Isotropic": gj.Isotropic(2.0, 6),
    "Diagonal": gj.Diagonal(np.linspace(1, 2, 6)),
    "Cholesky": gj.Cholesky(np.eye(6) + np.tril(np.ones((6, 6)))),
    "PrecisionCholesky": gj.PrecisionCholesky(np.eye(6) + np.tril(np.ones((6, 6)))),
    "Root": gj.Root(RNG.standard_normal((6, 2))),
    "LowRank": gj.LowRank(np.linspace(1, 2, 6), RNG.standard_normal((6, 2))),
    "Kronecker": gj.Kronecker((gj.Cholesky(np.eye(2) + 0.5), gj.Cholesky(np.eye(3) + 0.5))),
    "BlockDiagonal": gj.BlockDiagonal((gj.Isotropic(2.0, 2), gj.Cholesky(np.eye(4) + 0.5))),
    "StackedBlocks": gj.StackedBlocks(gj.Cholesky(np.eye(3)[None] + np.full((2, 3, 3), 0.5))),
    "Circulant": gj.Circulant(np.array([4.0, 3.0, 2.0, 1.0, 2.0, 3.0])),
    "Toeplitz": gj.Toeplitz(0.5 ** np.arange(6)),
    "BandedPrecision": gj.BandedPrecision(np.array([[2.0] * 6, [1.0] * 6, [0.5] * 6])),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_structure_has_as_many_parameters_as_directions(name):
    """The rank of the derivative of Σ in the arrays of its structure."""
    cov = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), COUNTED[name])
    flat, back = ravel_pytree(cov)
    jacobian = jax.jacfwd(lambda v: gj.covariance(gj.Gaussian(jnp.zeros(6), back(v))))(flat)
    assert np.linalg.matrix_rank(jacobian.reshape(36, -1), tol=1e-3) == cov.num_parameters


# Student t ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.7, 4.0, 30.0, 1e4])
@pytest.mark.parametrize("d", [1, 4])
def test_densities_and_entropies_of_t_are_exact(d, degrees):
    """Scipy's own log-gamma loses digits at 10⁴: by mpmath."""
    t = gj.StudentT(jnp.float32(degrees), G.mean[:d], gj.Cholesky(G.cov.lower[:d, :d]))
    nu, lower = mpmath.mpf(float(t.degrees)), np.asarray(t.scale.lower, np.float64)
    x = np.random.default_rng(d).standard_normal((5, d)).astype(np.float32)
    z = np.linalg.solve(lower, (x - np.asarray(t.location)).astype(np.float64).T)
    logdet = 2 * np.log(np.diag(lower)).sum()
    mass = mpmath.loggamma((nu + d) / 2) - mpmath.loggamma(nu / 2)
    mass = mass - d * mpmath.log(nu * mpmath.pi) / 2 - logdet / 2
    log_prob = [float(mass - (nu + d) / 2 * mpmath.log1p(q / nu)) for q in (z**2).sum(0)]
    np.testing.assert_allclose(student_t.log_prob(t, x), log_prob, rtol=1e-5)
    spread = (nu + d) / 2 * (mpmath.digamma((nu + d) / 2) - mpmath.digamma(nu / 2))
    np.testing.assert_allclose(student_t.entropy(t), float(spread - mass), rtol=1e-5)


def test_samples_of_t_have_its_law():
    t = gj.StudentT(jnp.array([3.0, 8.0]), G.mean, G.cov)
    x = student_t.sample(jax.random.key(0), t, (20_000,))
    assert x.shape == (20_000, 2, 4)
    for i, nu in enumerate([3.0, 8.0]):
        squares = gj.mahalanobis(G, x[:, i]) / 4
        assert st.kstest(np.asarray(squares), st.f(4, nu).cdf).pvalue > 1e-4
    slope = jax.grad(
        lambda nu: student_t.sample(jax.random.key(0), gj.StudentT(nu, G.mean, G.cov)).sum()
    )
    assert np.isfinite(slope(3.0))
    np.testing.assert_allclose(gj.covariance(student_t.as_gaussian(t))[0], 3 * SIGMA, rtol=1e-4)


def test_the_fit_of_t_is_where_the_gradient_of_its_likelihood_is_zero():
    t = gj.StudentT(jnp.float32(4.0), G.mean, G.cov)
    x = student_t.sample(jax.random.key(1), t, (1000,))
    fitted = student_t.fit(x)
    assert 2.5 < fitted.degrees < 7
    assert student_t.fit(gj.sample(jax.random.key(2), G, (1000,))).degrees > 30
    flat, back = ravel_pytree(fitted)
    slope = back(quick_jit(jax.grad(lambda v: jnp.mean(student_t.log_prob(back(v), x))))(flat))
    lower = fitted.scale.lower
    np.testing.assert_allclose(lower.T @ slope.location, 0.0, atol=1e-4)
    np.testing.assert_allclose(jnp.tril(lower.T @ slope.scale.lower), 0.0, atol=1e-4)
    np.testing.assert_allclose(slope.degrees, 0.0, atol=1e-4)


def test_outliers_hardly_move_a_t():
    x = np.array(gj.sample(jax.random.key(2), G, (400,)))
    weights = np.where(np.arange(400) < 200, 2.0, 0.0)
    halves = student_t.fit(np.concatenate([x[:200]] * 2), degrees=4.0)
    weighted = student_t.fit(x, degrees=4.0, weights=weights)
    np.testing.assert_allclose(weighted.location, halves.location, atol=1e-4)
    x[:20] += 1e3
    np.testing.assert_allclose(student_t.fit(x, degrees=3.0).location, MU, atol=0.6)
    with pytest.raises(ValueError, match="at least 5 rows for a Student t of dimension 4"):
        student_t.fit(x[:4])
    with pytest.raises(ValueError, match="degrees must be positive"):
        student_t.fit(x, degrees=-1.0)
    with pytest.raises(ValueError, match="data must be finite"):
        student_t.fit(np.where(x > 900, np.nan, x), degrees=3.0)
    assert np.isnan(quick_jit(student_t.fit)(np.ones((9, 2), np.float32)).scale.lower).any()


@pytest.mark.parametrize("place", [0.0, 5.0])
def test_too_many_rows_in_one_place_leave_a_t_no_scale(place):
    """With ν = 1 and d = 1 more than half of them: the likelihood grows as the scale shrinks."""
    x = np.where(np.arange(20) < 14, place, np.random.default_rng(0).standard_normal(20))
    with pytest.raises(ValueError, match="must vary in every direction"):
        student_t.fit(x[:, None].astype(np.float32), degrees=1.0)


# Conjugate and other priors ----------------------------------------------------------------------


def test_predictions_multiply_to_the_marginal_likelihood():
    """p(x₁ … xₙ) = Π p(xᵢ | those before): three functions that share no formula."""
    prior = gj.NormalInverseWishart(G.mean, jnp.float32(0.5), G.cov.lower, jnp.float32(5.5))
    x = np.asarray(gj.sample(jax.random.key(3), G, (6,)))

    def step(law, row):
        value = student_t.log_prob(niw.predictive(law), row)
        return niw.update(law, row[None]), value

    last, values = quick_jit(lambda x: jax.lax.scan(step, prior, x))(x)
    np.testing.assert_allclose(niw.log_marginal(prior, x), values.sum(), rtol=1e-5)
    at_once = niw.update(prior, gj.moments(x))
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    improper = gj.NormalInverseWishart(G.mean, jnp.float32(0.5), G.cov.lower, jnp.float32(2.0))
    assert np.isnan(niw.log_marginal(improper, x))


def test_wishart_densities_are_scipys():
    lower, scale = G.cov.lower, jnp.eye(4) * 0.7 + 0.1 * jnp.tril(jnp.ones((4, 4)))
    v = np.asarray(scale, np.float64) @ np.asarray(scale, np.float64).T
    a = np.asarray(lower, np.float64) @ np.asarray(lower, np.float64).T
    np.testing.assert_allclose(
        gj.wishart_log_prob(lower, 6.5, scale), st.wishart(6.5, v).logpdf(a), rtol=1e-5
    )
    np.testing.assert_allclose(
        gj.inverse_wishart_log_prob(lower, 6.5, scale), st.invwishart(6.5, v).logpdf(a), rtol=1e-5
    )
    assert np.isnan(gj.wishart_log_prob(lower, 2.0, scale))


def test_lkj_of_what_is_no_factor_is_nan_and_of_the_end_what_the_density_is():
    assert np.isnan(gj.lkj_log_prob(jnp.array([[1.0, 0.0], [jnp.nan, 0.5]]), 2.0))
    end = jnp.array([[1.0, 0.0], [1.0, 0.0]])  # a correlation of one
    densities = [gj.lkj_log_prob(end, eta) for eta in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(densities, [np.inf, np.log(0.5), -np.inf], rtol=1e-6)


@pytest.mark.parametrize("eta", [0.5, 3.0])
def test_lkj_is_numpyros(eta):
    numpyro = pytest.importorskip("numpyro.distributions")
    lower = pz.correlation_from_vector(
        np.random.default_rng(1).standard_normal(6).astype(np.float32)
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = numpyro.LKJCholesky(4, eta).log_prob(lower)
    np.testing.assert_allclose(gj.lkj_log_prob(lower, eta), expected, rtol=2e-6)
    assert np.isnan(gj.lkj_log_prob(lower, -1.0))
