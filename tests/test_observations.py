"""Observations with entries that are missing, and the smoother's step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES
from compiling import quick_jit

import gaussjax as gj

D, M = 4, 3
MASKS = np.array([[True, False, True], [False, False, False], [True, True, True]])
PAIRS = [
    ("diagonal", "isotropic"),
    ("cholesky", "cholesky"),
    ("precision", "low_rank"),
    ("root", "root"),
    ("toeplitz", "toeplitz"),
    ("banded_precision", "precision"),
]


def a_case(prior_kind, noise_kind):
    rng = np.random.default_rng(0)
    prior, prior_cov = STRUCTURES[prior_kind](rng, D, np.float32)
    noise, noise_cov = STRUCTURES[noise_kind](rng, M, np.float32)
    mean, noise_mean, y = (rng.normal(size=n).astype(np.float32) for n in (D, M, M))
    matrix = rng.normal(size=(M, D)).astype(np.float32)
    gaussians = gj.Gaussian(jnp.asarray(mean), prior), gj.Gaussian(jnp.asarray(noise_mean), noise)
    return *gaussians, matrix, y, (mean, prior_cov, noise_mean, noise_cov)


@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_entries_off_the_mask_are_not_observed(kinds):
    prior, noise, matrix, y, (mean, cov, noise_mean, noise_cov) = a_case(*kinds)
    holes = np.where(MASKS, y, np.nan).astype(np.float32)

    @quick_jit
    def ours(y):
        def total(y):
            posterior, log_evidence = gj.observe(prior, matrix, noise, y, mask=MASKS)
            laws = posterior.mean, gj.covariance(posterior), log_evidence
            return jnp.sum(posterior.mean) + jnp.sum(log_evidence), laws

        return jax.grad(total, has_aux=True)(y)

    slopes, (means, covs, values) = ours(holes)
    for i, mask in enumerate(MASKS):
        seen = matrix[mask].astype(float)
        rest = (y - matrix @ mean - noise_mean)[mask]
        total = seen @ cov @ seen.T + noise_cov[np.ix_(mask, mask)]
        gain = np.linalg.solve(total, seen @ cov).T
        np.testing.assert_allclose(means[i], mean + gain @ rest, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(covs[i], cov - gain @ seen @ cov, rtol=1e-4, atol=1e-5)
        value = -0.5 * (rest @ np.linalg.solve(total, rest))
        value -= 0.5 * np.linalg.slogdet(2 * np.pi * total)[1]
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        expected = np.sum(gain, 0) - np.linalg.solve(total, rest)
        np.testing.assert_allclose(slopes[i][mask], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(slopes[i][~mask], 0)
    assert values[1] == 0


def test_a_mask_goes_through_vmap_and_scan():
    prior, noise, matrix, y, _ = a_case("cholesky", "cholesky")
    holes = np.where(MASKS, y, np.nan).astype(np.float32)
    native = gj.observe(prior, matrix, noise, holes, mask=MASKS)

    def observe(y, mask):
        return gj.observe(prior, matrix, noise, y, mask=mask)

    mapped = jax.vmap(observe)(holes, MASKS)
    _, scanned = jax.lax.scan(lambda c, row: (c, observe(*row)), None, (holes, MASKS))
    for other in (mapped, scanned):
        for a, b in zip(jax.tree.leaves(native), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_mask_of_numbers_is_refused():
    prior, noise, matrix, y, _ = a_case("cholesky", "cholesky")
    with pytest.raises(TypeError, match="mask"):
        gj.observe(prior, matrix, noise, y, mask=np.ones(M))


def textbook_step(filtered, transition, process, following):
    (mean, cov), (drift, noise), (later, later_cov) = filtered, process, following
    predicted = transition @ cov @ transition.T + noise
    gain = cov @ transition.T @ np.linalg.pinv(predicted)
    moved = mean + gain @ (later - transition @ mean - drift)
    return moved, cov + gain @ (later_cov - predicted) @ gain.T


@pytest.mark.parametrize("kind", ["cholesky", "diagonal", "root"])
def test_a_smoothing_step_is_the_textbooks(kind):
    rng = np.random.default_rng(0)
    laws = [STRUCTURES[kind](rng, D, np.float32) for _ in range(3)]
    means = rng.normal(size=(3, D)).astype(np.float32)
    transition = rng.normal(size=(D, D)).astype(np.float32)
    g = [gj.Gaussian(jnp.asarray(m), c) for m, (c, _) in zip(means, laws, strict=True)]
    smoothed = gj.smooth_step(g[0], transition, g[1], g[2])
    exact = [(m.astype(float), c) for m, (_, c) in zip(means, laws, strict=True)]
    mean, cov = textbook_step(exact[0], transition.astype(float), exact[1], exact[2])
    np.testing.assert_allclose(smoothed.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gj.covariance(smoothed), cov, rtol=1e-4, atol=1e-5)


def test_a_smoothing_step_goes_through_singular_laws():
    transition = np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)
    filtered = gj.from_scale(jnp.array([1.0, 0.5]), jnp.array([2.0, 0.0]))  # velocity is known
    process = gj.from_root(jnp.zeros(2), jnp.array([[0.5], [0.0]]))  # and stays so
    following = gj.from_scale(jnp.array([2.0, 0.5]), jnp.array([1.0, 0.0]))
    mean, cov = textbook_step(
        ([1.0, 0.5], np.diag([4.0, 0.0])), transition, ([0, 0], np.diag([0.25, 0.0])),
        ([2.0, 0.5], np.diag([1.0, 0.0])),
    )  # fmt: skip

    def variance(scale):
        law = gj.from_root(jnp.zeros(2), scale * jnp.array([[0.5], [0.0]]))
        return gj.variance(gj.smooth_step(filtered, transition, law, following))[0]

    smoothed = gj.smooth_step(filtered, transition, process, following)
    np.testing.assert_allclose(smoothed.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(gj.covariance(smoothed), cov, rtol=1e-5, atol=1e-7)
    ahead, behind = variance(1.01), variance(0.99)
    np.testing.assert_allclose(jax.grad(variance)(1.0), (ahead - behind) / 0.02, rtol=1e-2)
