"""Jeffreys, the decoupled KL, and the dependence of coordinates, against 60 digits."""

import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracle
import pytest
from catalogue import STRUCTURES, random_lower
from compiling import eagerly, quick_jit
from test_divergences import gaussians, nearby

import gaussjax as gj


@pytest.mark.parametrize("separation", [0.3, 1e-3, 1e-6])
@pytest.mark.parametrize("d", [1, 4, 17])
def test_jeffreys_and_the_parts_of_a_kl_are_exact_at_any_separation(d, separation):
    mean_p, lower_p, mean_q, lower_q = nearby(np.random.default_rng(d), d, separation)
    p, q = gaussians(mean_p, lower_p, mean_q, lower_q)
    a, b = (oracle.covariance("cholesky", x) for x in (lower_p, lower_q))
    both = oracle.kl(mean_p, a, mean_q, b) + oracle.kl(mean_q, b, mean_p, a)
    assert oracle.relative_error(gj.jeffreys_divergence(p, q), both) <= 5e-7
    parts = gj.decoupled_kl(p, q)
    assert oracle.relative_error(parts.mean, oracle.kl(mean_p, a, mean_q, a)) <= 5e-7
    assert oracle.relative_error(parts.covariance, oracle.kl(mean_p, a, mean_p, b)) <= 5e-7


def test_each_part_of_a_decoupled_kl_has_its_gradient_alone():
    p, q = gaussians(*nearby(np.random.default_rng(0), 3, 0.3))
    of_mean = jax.grad(lambda q: gj.decoupled_kl(p, q).mean)(q)
    of_cov = jax.grad(lambda q: gj.decoupled_kl(p, q).covariance)(q)
    assert np.all(of_mean.cov.lower == 0)
    assert np.all(of_cov.mean == 0)
    assert np.any(of_mean.mean != 0)
    assert np.any(of_cov.cov.lower != 0)


def test_jeffreys_and_both_parts_are_zero_between_equal_gaussians_with_zero_gradients():
    p, _ = gaussians(*nearby(np.random.default_rng(0), 3, 0.3))
    for function in (gj.jeffreys_divergence, lambda p, q: sum(gj.decoupled_kl(p, q))):
        value, gradients = jax.value_and_grad(function, (0, 1))(p, p)
        assert value == 0
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradients))


def dependent(d, strength):
    """A factor whose coordinates depend on each other as weakly as wanted."""
    lower = random_lower(np.random.default_rng(d), d)
    return (np.tril(lower, -1) * strength + np.diag(np.diagonal(lower))).astype(np.float32)


def log_ratio(sigma, groups):
    """½ (Σ log|Σᵢᵢ| − log|Σ|) over groups of coordinates."""
    parts = [mpmath.matrix([[sigma[i, j] for j in g] for i in g]) for g in groups]
    logs = [mpmath.log(mpmath.det(m)) for m in parts]
    return (sum(logs) - mpmath.log(mpmath.det(sigma))) / 2


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("d", [2, 5, 17])
def test_dependence_is_exact_however_weak(d, strength):
    lower = dependent(d, strength)
    g, sigma = gj.from_cholesky(jnp.zeros(d), lower), oracle.covariance("cholesky", lower)
    exact = log_ratio(sigma, [[i] for i in range(d)])
    assert oracle.relative_error(gj.total_correlation(g), exact) <= 5e-7
    n = d // 2
    exact = log_ratio(sigma, [range(n), range(n, d)])
    assert oracle.relative_error(gj.mutual_information(g, slice(0, n)), exact) <= 1e-6


@pytest.mark.parametrize(("kind", "d"), [*[(k, 6) for k in STRUCTURES], ("low_rank", 72)])
def test_dependence_in_every_structure_agrees_with_dense_linear_algebra(kind, d):
    with jax.enable_x64(True):
        cov, sigma = STRUCTURES[kind](np.random.default_rng(2), d, np.float64)
        g = gj.Gaussian(jnp.zeros(d), cov)
        total, between, some = eagerly(
            lambda g: (
                gj.total_correlation(g),
                gj.mutual_information(g, [4, 1]),
                gj.mutual_information(g, [4, 1], [2]),
            )
        )(g)

    def logdet(i):
        return np.linalg.slogdet(sigma[np.ix_(i, i)])[1]

    rest = [i for i in range(d) if i not in (1, 4)]
    whole = logdet(range(d))
    expected = (
        0.5 * (np.sum(np.log(np.diag(sigma))) - whole),
        0.5 * (logdet([1, 4]) + logdet(rest) - whole),
        0.5 * (logdet([1, 4]) + logdet([2]) - logdet([1, 2, 4])),
    )
    np.testing.assert_allclose((total, between, some), expected, rtol=1e-9, atol=1e-11)


def test_gradients_of_dependence_agree_with_those_of_log_determinants():
    def naive_total(lower):
        sigma = lower @ lower.T
        return 0.5 * (jnp.sum(jnp.log(jnp.diag(sigma))) - jnp.linalg.slogdet(sigma)[1])

    def naive_mutual(lower):
        sigma = lower @ lower.T
        parts = [jnp.linalg.slogdet(x)[1] for x in (sigma[:2, :2], sigma[2:, 2:], sigma)]
        return 0.5 * (parts[0] + parts[1] - parts[2])

    with jax.enable_x64(True):
        lower = jnp.asarray(random_lower(np.random.default_rng(0), 5, np.float64))
        for naive, ours in (
            (naive_total, gj.total_correlation),
            (naive_mutual, lambda g: gj.mutual_information(g, [0, 1])),
        ):

            def of_lower(x, ours=ours):
                return ours(gj.Gaussian(jnp.zeros(5), gj.Cholesky(x)))

            expected = np.tril(quick_jit(jax.grad(naive))(lower))
            for way in (jax.grad, jax.jacfwd):
                np.testing.assert_allclose(quick_jit(way(of_lower))(lower), expected, atol=1e-12)
            hessians = [
                quick_jit(jax.hessian(lambda t, f=f: f(lower + t * jnp.tril(lower**2))))(0.0)
                for f in (of_lower, naive)
            ]
            np.testing.assert_allclose(*hessians, rtol=1e-9)


def test_independent_coordinates_say_nothing_of_each_other_with_a_zero_gradient():
    for cov in (gj.Cholesky(jnp.diag(jnp.arange(1.0, 5.0))), gj.Diagonal(jnp.arange(1.0, 5.0))):
        g = gj.Gaussian(jnp.zeros(4), cov)
        for function in (gj.total_correlation, lambda g: gj.mutual_information(g, [0, 2])):
            value, gradient = jax.value_and_grad(function)(g)
            assert value == 0
            assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_a_determined_coordinate_has_infinite_information():
    g = gj.from_root(jnp.zeros(2), jnp.array([[1.0], [2.0]]))
    assert gj.mutual_information(g, [0]) == jnp.inf
    assert gj.total_correlation(g) == jnp.inf


def test_groups_of_coordinates_must_not_overlap():
    with pytest.raises(ValueError, match="must not overlap"):
        gj.mutual_information(gj.standard(3), [0, 1], [1, 2])


def test_dependence_takes_batches_of_which_one_may_be_bad():
    lower = np.stack([dependent(4, s) for s in (1.0, 0.1)] + [np.full((4, 4), np.nan)])
    g = gj.Gaussian(jnp.zeros(4), gj.Cholesky(jnp.asarray(lower, jnp.float32)))
    for function in (gj.total_correlation, lambda g: gj.mutual_information(g, [3])):
        values = np.asarray(function(g))
        assert np.isnan(values[2])
        one = [function(gj.Gaussian(jnp.zeros(4), gj.Cholesky(g.cov.lower[i]))) for i in range(2)]
        np.testing.assert_allclose(values[:2], one, rtol=1e-6)


def test_nothing_depends_in_no_dimensions():
    g = gj.standard(0)
    for value in itertools.chain(
        (gj.total_correlation(g), gj.mutual_information(g, []), gj.jeffreys_divergence(g, g)),
        gj.decoupled_kl(g, g),
    ):
        assert value == 0
