"""The examples of inference run, and agree with NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

import gaussjax as gj
from examples import gp_regression, kalman, missing_data

# A Kalman filter and smoother --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    out = tmp_path_factory.mktemp("kalman")
    findings = kalman.main(out, steps=12, missing=0.4, chain=2_000)
    assert (out / "track.png").stat().st_size > 0
    return findings


def textbook_smoother(model, y):
    """Law of all states given what is seen, and log p(y), from dense covariances in NumPy."""
    prior, f, process, h, noise = (
        (np.asarray(x.mean, float), np.asarray(gj.covariance(x), float))
        if isinstance(x, gj.Gaussian)
        else np.asarray(x, float)
        for x in model
    )
    n, d = len(y), len(f)
    powers = [np.linalg.matrix_power(f, k) for k in range(n)]
    paths = np.block(
        [[powers[t - s] if s <= t else np.zeros((d, d)) for s in range(n)] for t in range(n)]
    )
    cov = paths @ linalg.block_diag(prior[1], *[process[1]] * (n - 1)) @ paths.T
    mean = paths @ np.concatenate([prior[0], *[process[0]] * (n - 1)])
    seen = ~np.isnan(y.ravel())
    y, h = y.ravel()[seen], np.kron(np.eye(n), h)[seen]
    of_y = h @ cov @ h.T + np.kron(np.eye(n), noise[1])[np.ix_(seen, seen)]
    shift = h @ mean + np.tile(noise[0], n)[seen]
    gain = np.linalg.solve(of_y, h @ cov).T
    posterior = cov - gain @ h @ cov
    return (
        (mean + gain @ (y - shift)).reshape(n, d),
        np.diag(posterior).reshape(n, d),
        stats.multivariate_normal(shift, of_y).logpdf(y),
    )


def test_kalman_smoother_is_the_conditional_of_the_dense_joint_gaussian(tracked):
    mean, variance = gj.mean(tracked.smoothed), gj.variance(tracked.smoothed)
    log_evidence = tracked.filtered.log_evidence
    assert np.isnan(tracked.observations).any()
    exact = textbook_smoother(tracked.model, np.asarray(tracked.observations, float))
    for answer in (exact, tracked.dense):
        np.testing.assert_allclose(mean, answer[0], atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(variance, answer[1], atol=1e-4, rtol=1e-4)
        assert log_evidence == pytest.approx(float(answer[2]), abs=1e-4)


def test_a_long_chain_stays_as_exact_as_a_short_one(tracked):
    model, key = tracked.model, jax.random.key(1)
    short, long = (kalman.run_chain(key, model, n, 0.2) for n in (2_000, 20_000))
    assert short / 1.3 < long < 1.3 * short < 1.3 * 3.0  # of the noise


def test_the_filter_knows_no_later_observation_and_ends_where_the_smoother_begins(tracked):
    y = tracked.observations
    shorter = kalman.filter_forwards(tracked.model, y[:5]).states
    changed = kalman.filter_forwards(tracked.model, y.at[5:].add(100.0)).states
    filtered = tracked.filtered.states
    for other in (shorter, changed):
        np.testing.assert_allclose(gj.mean(other)[:5], gj.mean(filtered)[:5], rtol=1e-6)
    np.testing.assert_array_equal(gj.mean(filtered)[-1], gj.mean(tracked.smoothed)[-1])
    # less as long as there are later observations: at the end there may be none
    smoothed, known = gj.variance(tracked.smoothed), gj.variance(filtered)
    assert np.all(smoothed[:6] < known[:6])
    assert np.all(smoothed < 1.00001 * known)


def test_the_log_evidence_of_the_filter_has_a_gradient(tracked):
    def log_evidence(log_noise):
        noise = gj.from_scale(jnp.zeros(1), jnp.exp(log_noise))
        return kalman.filter_forwards(
            tracked.model._replace(noise=noise), tracked.observations
        ).log_evidence

    at, step = jnp.log(3.0), 1e-2
    slope = (log_evidence(at + step) - log_evidence(at - step)) / (2 * step)
    assert jax.grad(log_evidence)(at) == pytest.approx(float(slope), rel=1e-2, abs=1e-2)


# Gaussian-process regression ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def regressed(tmp_path_factory):
    out = tmp_path_factory.mktemp("gp_regression")
    findings = gp_regression.main(out, points=200, training_points=100, steps=20, length=10.0)
    assert (out / "series.png").stat().st_size > 0
    return findings


def test_regression_on_a_grid_agrees_with_dense_matrices(regressed):
    amplitude, length, noise = (float(x) for x in regressed.learned.kernel)
    y = np.asarray(regressed.observed, float)
    n = len(y)
    prior = amplitude**2 * linalg.toeplitz(np.exp(-np.arange(n) / length))
    of_y = prior + noise**2 * np.eye(n)
    weights = np.linalg.solve(of_y, y)

    law = gp_regression.data_law(regressed.learned.kernel, n)
    assert isinstance(law.cov, gj.Toeplitz)
    np.testing.assert_allclose(gj.solve(law, regressed.observed), weights, atol=1e-4)
    np.testing.assert_allclose(regressed.mean, prior @ weights, atol=1e-4)
    exact = stats.multivariate_normal(np.zeros(n), of_y).logpdf(y)
    assert regressed.log_evidence == pytest.approx(exact, rel=1e-5)
    assert regressed.residual < 1e-5


def test_the_markov_chain_of_the_kernel_gives_the_same_answers(regressed):
    assert regressed.chain.log_evidence == pytest.approx(float(regressed.log_evidence), rel=1e-5)
    np.testing.assert_allclose(regressed.chain.mean, regressed.mean, atol=1e-4)


def test_learning_a_kernel_lowers_the_loss_and_the_mean_is_nearer_than_the_data(regressed):
    losses = regressed.learned.losses
    assert losses[-1] < losses[0] - 0.02
    error = jnp.mean((regressed.mean - regressed.latent) ** 2)
    assert error < 0.7 * jnp.mean((regressed.observed - regressed.latent) ** 2)


# Missing data ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    out = tmp_path_factory.mktemp("missing_data")
    findings = missing_data.main(out, steps=60, imputations=20)
    assert (out / "imputation.png").stat().st_size > 0
    return findings


def test_conditional_means_are_nearer_to_the_removed_entries_than_column_means(completed):
    errors = {k: missing_data.rmse(guess, completed) for k, guess in completed.guesses.items()}
    assert errors["complete data"] < errors["maximum likelihood"]
    assert errors["maximum likelihood"] < 0.8 * errors["mean imputation"]


def test_maximum_likelihood_is_nearer_to_the_complete_data_than_mean_imputation(completed):
    assert completed.fit.losses[-1] < completed.fit.losses[0] - 1
    divergences = completed.divergences
    assert divergences["maximum likelihood"] < 0.6 * divergences["mean imputation"]


def test_observed_entries_stay_to_the_bit(completed):
    table, mask = np.asarray(completed.table), np.asarray(completed.mask)
    for filled in (completed.guesses["mean imputation"], *completed.imputed):
        np.testing.assert_array_equal(np.asarray(filled)[mask], table[mask])
    for guess in completed.guesses.values():  # a conditional mean is μ + (x − μ) there: rounded
        np.testing.assert_allclose(np.asarray(guess)[mask], table[mask], atol=1e-6)
    assert np.all(np.std(completed.imputed, axis=0)[~mask] > 0)
    assert 0.7 < completed.coverage < 0.95


def test_without_gaps_gradient_descent_finds_the_closed_form():
    x = missing_data.standardised_wine()[0][:, :3]
    fit = missing_data.learn(x, jnp.ones(x.shape, bool), 400)
    closed_form = missing_data.maximum_likelihood(x)
    assert gj.kl_divergence(closed_form, fit.gaussian) < 1e-5


def test_rubins_rules_add_the_variance_between_tables():
    answers = missing_data.Pooled(jnp.array([1.0, 2.0, 3.0]), jnp.full(3, 2.0))
    pooled = missing_data.pool(answers)
    assert pooled.estimate == pytest.approx(2.0)
    assert pooled.error == pytest.approx((4.0 + (1 + 1 / 3) * 1.0) ** 0.5)
