"""EM with masks: closed cases, a gradient of zero, a likelihood that never falls; Rubin's rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit

import gaussjax as gj

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((300, 4)) @ RNG.standard_normal((4, 4)) + 3).astype(np.float32)
MASK = RNG.uniform(size=X.shape) < 0.8
HOLES = np.where(MASK, X, np.nan)


def log_likelihood(g):
    return jnp.mean(gj.log_prob_observed(g, X, mask=MASK))


def test_the_estimate_is_where_the_gradient_of_the_observed_likelihood_is_zero():
    g = gj.fit_missing(HOLES, mask=MASK)
    slope = quick_jit(jax.grad(log_likelihood))(g)
    lower = g.cov.lower  # in units of which nothing depends on the condition
    np.testing.assert_allclose(lower.T @ slope.mean, 0.0, atol=1e-4)
    np.testing.assert_allclose(jnp.tril(lower.T @ slope.cov.lower), 0.0, atol=1e-4)


def test_under_jit_and_in_a_batch_it_is_the_same_and_a_bad_row_is_nan():
    g = gj.fit_missing(HOLES, mask=MASK)
    bad = np.where(np.arange(300)[:, None] == 3, np.inf, HOLES)
    both = quick_jit(lambda x: gj.fit_missing(x, mask=MASK))(np.stack([HOLES, bad]))
    np.testing.assert_allclose(both.cov.lower[0], g.cov.lower, atol=1e-4)
    assert np.isnan(both.cov.lower[1][np.tril_indices(4)]).all()


def test_the_likelihood_never_falls():
    def step(g, _):
        new = gj.em_step(g, HOLES, mask=MASK)
        return new, log_likelihood(new)

    start = gj.as_cholesky(gj.standard(4))
    _, trace = jax.lax.scan(step, start, length=40)
    assert np.all(np.diff(trace) >= -1e-5)
    assert trace[-1] > trace[0] + 1


def test_two_columns_with_holes_in_one_have_andersons_estimate():
    """Anderson (1957): the regression of the second on the first, at the first's own moments."""
    x = X[:, :2].astype(np.float64)
    seen = np.arange(300) < 120
    mask = np.stack([np.full(300, True), seen], axis=1)
    first, (a, b) = x[:, 0], x[seen].T
    slope = np.cov(a, b, bias=True)[0, 1] / a.var()
    rest = np.var(b - slope * a)
    mean = [first.mean(), b.mean() + slope * (first.mean() - a.mean())]
    cov = first.var() * np.array([[1, slope], [slope, slope**2]]) + np.diag([0, rest])
    g = gj.fit_missing(X[:, :2], mask=mask)
    np.testing.assert_allclose(g.mean, mean, rtol=2e-5)
    np.testing.assert_allclose(gj.covariance(g), cov, rtol=1e-4)


@pytest.mark.parametrize("unit", [1.0, 2.0**10])
def test_derivatives_do_not_depend_on_the_units_of_columns(unit):
    """Those of Anderson's regression on the complete column, whatever the other is measured in."""
    units = np.array([unit, 1 / unit], np.float32)
    x, mask = X[:12, :2] * units, np.stack([np.ones(12, bool), np.arange(12) < 4], axis=1)
    moved = np.where(np.arange(12) < 4, 1.0, -0.5).astype(np.float32)

    def closed(x):  # the second column is seen in the first rows alone
        seen = x[:4]
        slope = jnp.sum((seen[:, 0] - seen[:, 0].mean()) * seen[:, 1])
        slope = slope / jnp.sum(jnp.square(seen[:, 0] - seen[:, 0].mean()))
        return seen[:, 1].mean() + slope * (x[:, 0].mean() - seen[:, 0].mean())

    direction = np.stack([moved * unit, np.zeros(12, np.float32)], axis=1).astype(np.float32)
    value, slope = jax.jvp(lambda x: gj.fit_missing(x, mask=mask).mean[1], (x,), (direction,))
    expected, change = jax.jvp(closed, (x,), (direction,))
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(slope, change, rtol=1e-2)
    backward = jax.grad(lambda x: gj.fit_missing(x, mask=mask).mean[1])(x)
    np.testing.assert_allclose(np.vdot(backward, direction), change, rtol=1e-2)


def test_without_holes_it_is_the_fit_and_weights_are_equal_rows():
    all_seen = np.full(X.shape, True)
    np.testing.assert_allclose(
        gj.covariance(gj.fit_missing(X, mask=all_seen)),
        gj.covariance(gj.fit(X)),
        rtol=1e-5,
        atol=1e-5,
    )
    start, weights = gj.as_cholesky(gj.standard(4)), np.random.default_rng(1).integers(0, 3, 300)
    x, mask = np.repeat(HOLES, weights, axis=0), np.repeat(MASK, weights, axis=0)
    one, other = (
        gj.em_step(start, HOLES, mask=MASK, weights=weights),
        gj.em_step(start, x, mask=mask),
    )
    np.testing.assert_allclose(gj.covariance(one), gj.covariance(other), rtol=1e-4, atol=1e-4)


def test_what_is_wrong_is_said():
    with pytest.raises(TypeError, match="mask must be an array of booleans"):
        gj.fit_missing(X, mask=np.ones(X.shape))
    with pytest.raises(ValueError, match="mask must have the shape"):
        gj.fit_missing(X, mask=MASK[:3])
    never = MASK & (np.arange(4) != 2)
    with pytest.raises(ValueError, match="must vary in every direction for fit_missing"):
        gj.fit_missing(HOLES, mask=never)
    with pytest.raises(ValueError, match="must vary in every direction for fit_missing"):
        gj.fit_missing(X[:4], mask=np.full((4, 4), True))
    with pytest.raises(ValueError, match="data must be finite"):
        gj.fit_missing(HOLES, mask=np.full(X.shape, True))
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        gj.fit_missing(X, mask=MASK, weights=-np.ones(300))
    few = quick_jit(lambda x: gj.fit_missing(x, mask=MASK, most=1))(X)
    assert np.isnan(few.cov.lower).any()


def test_rubins_rules_are_those_of_the_book():
    estimates, variances = np.array([10.0, 12.0, 11.0, 13.0]), np.array([1.0, 1.5, 1.2, 0.9])
    pooled = gj.pool_imputations(estimates, variances)
    within, between = variances.mean(), estimates.var(ddof=1)
    total = within + 1.25 * between
    r = 1.25 * between / within
    np.testing.assert_allclose(pooled.estimate, 11.5)
    np.testing.assert_allclose(pooled.variance, total, rtol=1e-6)
    np.testing.assert_allclose(pooled.degrees, 3 * (1 + 1 / r) ** 2, rtol=1e-6)
    np.testing.assert_allclose(pooled.missing, r / (1 + r), rtol=1e-6)
    assert gj.pool_imputations([1.0, 1.0], [2.0, 2.0]).degrees == np.inf
    assert all(np.isnan(v) for v in gj.pool_imputations([1.0, 1.0], [2.0, -2.0])[1:])
    with pytest.raises(ValueError, match="at least 2"):
        gj.pool_imputations([1.0], [2.0])
