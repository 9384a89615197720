"""The documents run, and what each says is so."""

import jax
import numpy as np
import pytest
from scipy import stats

import gaussjax as gj
from examples import kl_divergence, learn_covariance, reparameterization

# A test of a random sample that is right fails for one seed in a million; the seeds are fixed.
FALSE_ALARM = 1e-6


@pytest.fixture(autouse=True)
def default_promotion():
    """A document is run under JAX's default settings, as its reader would."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def reparameterized(tmp_path):
    laws = reparameterization.main(tmp_path, samples=5_000)
    assert (tmp_path / "roots.png").stat().st_size > 0
    return laws


def test_two_roots_give_different_samples_of_the_same_law(reparameterized):
    symmetric = reparameterized["full, symmetric Σ^{1/2}"]
    cholesky = reparameterized["full, Cholesky L"]
    assert np.mean(np.linalg.norm(symmetric.points - cholesky.points, axis=-1)) > 0.1
    for law in (symmetric, cholesky):
        assert law.p_value > FALSE_ALARM
        whitened = np.linalg.solve(
            np.linalg.cholesky(np.asarray(reparameterization.COVARIANCE, float)),
            (np.asarray(law.points, float) - np.asarray(reparameterization.MEAN)).T,
        )
        # Radius² is χ² with two degrees of freedom, and each coordinate is standard normal.
        assert stats.kstest(np.sum(whitened**2, axis=0), "chi2", (2,)).pvalue > FALSE_ALARM
        for coordinate in whitened:
            assert stats.kstest(coordinate, "norm").pvalue > FALSE_ALARM


def test_the_elementwise_root_is_right_for_a_diagonal_only(reparameterized):
    by_hand = reparameterized["diagonal, μ + σ ⊙ ε"]
    np.testing.assert_allclose(
        by_hand.points, reparameterized["diagonal, gj.color"].points, rtol=1e-6, atol=1e-6
    )
    assert by_hand.p_value > FALSE_ALARM
    assert reparameterized["elementwise √Σ"].p_value < FALSE_ALARM


def test_the_root_of_a_standard_deviation_has_the_wrong_variance(reparameterized):
    slip = reparameterized["the slip, μ + √σ ⊙ ε"]
    assert slip.p_value < FALSE_ALARM
    # The second variance σ² is 2, and the slip gives σ = √2; relative standard error √(2/n).
    assert slip.covariance[1, 1] == pytest.approx(2**0.5, rel=5 * (2 / 5_000) ** 0.5)


@pytest.fixture
def learned(tmp_path):
    findings = learn_covariance.main(tmp_path, epochs=100)
    assert (tmp_path / "covariance.png").stat().st_size > 0
    return findings


def test_gradient_descent_lands_on_the_closed_form_covariance(learned, capsys):
    x = np.asarray(learned.points, float)
    assert len(x) == 1024
    sample = np.cov(x.T, bias=True)
    for (name, fit), tolerance in zip(learned.fits.items(), (1e-3, 1e-3, 2e-2), strict=True):
        np.testing.assert_allclose(
            gj.covariance(fit.gaussian), sample, atol=tolerance, rtol=0, err_msg=name
        )
        np.testing.assert_allclose(
            gj.mean(fit.gaussian), x.mean(0), atol=tolerance, rtol=0, err_msg=name
        )


def test_the_learned_covariance_is_printed_and_the_raw_triangle_is_not_it(tmp_path, capsys):
    findings = learn_covariance.main(tmp_path, epochs=5)
    answers, slip = capsys.readouterr().out.split("Not the covariance")
    for name, fit in findings.fits.items():
        line = next(line for line in answers.splitlines() if line.startswith(name))
        learned = np.asarray(gj.covariance(fit.gaussian))
        assert f"{learned[0, 0]:7.4f} {learned[1, 0]:7.4f} {learned[1, 1]:7.4f}" in line
        assert np.max(np.abs(learn_covariance.raw_product(fit.vector) - learned)) > 0.5
        assert name in slip
    assert {"truth", "closed form"} <= {line.split("  ")[0] for line in answers.splitlines()}


def test_minibatches_visit_every_point_once_an_epoch():
    rows = learn_covariance.minibatches(jax.random.key(0), 12, 4, 3)
    assert rows.shape == (9, 4)
    for epoch in rows.reshape(3, 12):
        assert sorted(epoch.tolist()) == list(range(12))


@pytest.mark.parametrize("dim", [2, 6])
def test_stable_kl_keeps_the_digits_that_the_textbook_loses(dim, tmp_path):
    rows, _ = kl_divergence.main(tmp_path, dim=dim, samples=1_000)
    assert (tmp_path / "error.png").stat().st_size > 0
    assert max(row.stable_error for row in rows) < 5e-7
    assert min(row.stable for row in rows) > 0
    far = [row.textbook_error for row in rows if row.distance >= 0.1]
    near = [row.textbook_error for row in rows if row.distance <= 1e-4]
    assert max(far) < 1e-4  # the formula is right where nothing cancels
    assert min(near) > 0.1


def test_monte_carlo_agrees_with_the_closed_form(tmp_path):
    checked = kl_divergence.main(tmp_path, samples=20_000).monte_carlo
    deviations = stats.norm.isf(FALSE_ALARM / 2)
    assert abs(checked.estimate - checked.closed_form) < deviations * checked.standard_error
    assert checked.standard_error < 0.05 * checked.closed_form
