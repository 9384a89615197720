"""Singular laws: what is defined works, what is not is infinite or NaN, and filters go through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES
from compiling import quick_jit
from scipy.stats import multivariate_normal

import gaussjax as gj
from gaussjax.checks import check_gaussian

Z = jnp.zeros(2)
REGULAR = gj.from_covariance(Z, jnp.array([[1.0, 0.0], [0.0, 1.0]]))
W = jnp.array([[0.15], [0.3]])
SINGULAR = {
    "root": gj.from_root(Z, W),
    "semidefinite": gj.from_semidefinite(Z, W @ W.T),
    "of rank one": gj.from_semidefinite(Z, W @ W.T, rank=1),
    "low rank": gj.from_low_rank(Z, Z, W),
    "mapped": gj.affine(gj.standard(1), W),
    "cholesky": gj.as_cholesky(gj.from_root(Z, W)),
}
COVARIANCE = np.array([[0.0225, 0.045], [0.045, 0.09]])


def close(got, expected, rtol=2e-6, atol=2e-7):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", SINGULAR)
def test_a_singular_law_has_moments_maps_and_sums(kind):
    q = SINGULAR[kind]
    close(gj.covariance(q), COVARIANCE)
    close(gj.variance(q), np.diag(COVARIANCE))
    assert gj.rank(q) == 1
    close(gj.covariance(gj.convolve(REGULAR, q)), [[1.0225, 0.045], [0.045, 1.09]])
    close(gj.covariance(gj.convolve(q, q)), 2 * COVARIANCE)
    close(gj.covariance(gj.affine(q, [[1.0, 1.0]])), [[0.2025]])
    close(gj.covariance(gj.scale_by(q, [2.0, 0.0])), [[0.09, 0.0], [0.0, 0.0]])
    close(gj.variance(gj.marginal(q, [1])), [0.09])
    close(gj.covariance(gj.concatenate([q, REGULAR]))[:2, :2], COVARIANCE)
    close(gj.covariance(gj.take(gj.stack([q, q]), 1)), COVARIANCE)
    x = gj.sample(jax.random.key(0), q, (5,))
    close(x[:, 1], 2 * x[:, 0])
    close(gj.color(q, jnp.ones(2))[1], 2 * gj.color(q, jnp.ones(2))[0])


@pytest.mark.parametrize("kind", SINGULAR)
def test_a_singular_law_is_observed_conditioned_and_multiplied(kind):
    q, y = SINGULAR[kind], jnp.array([1.0, 2.0])
    posterior, log_evidence = gj.observe(q, jnp.eye(2), REGULAR, y)
    close(posterior.mean, [0.1011236, 0.2022472])
    total = COVARIANCE + np.eye(2)
    close(gj.covariance(posterior), COVARIANCE - COVARIANCE @ np.linalg.solve(total, COVARIANCE))
    close(log_evidence, multivariate_normal([0, 0], total).logpdf(y))
    close(gj.observe(REGULAR, jnp.eye(2), q, y).posterior.mean, [0.8988764, 1.7977528])
    for p, r in ((q, REGULAR), (REGULAR, q)):
        law, log_normalizer = gj.product(p, gj.shift(r, y))
        close(log_normalizer, log_evidence)
        mean = COVARIANCE @ np.linalg.solve(total, y)
        close(law.mean, mean if p is q else np.asarray(y) - mean)
    close(gj.variance(gj.joint(q, jnp.eye(2), REGULAR)), [0.0225, 0.09, 1.0225, 1.09])
    close(gj.variance(gj.joint(REGULAR, jnp.eye(2), q)), [1.0, 1.0, 1.0225, 1.09])
    given = gj.condition(q, [0], jnp.array([0.3]))
    close(given.mean, [0.6])
    close(gj.variance(given), [0.0], atol=1e-12)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_root_may_be_the_noise_of_what_is_known_by_its_precision(columns):
    """What singular noise leaves has no precision: the result is known by its covariance."""
    rng, y = np.random.default_rng(0), np.array([1.0, 2.0])
    factor, precision = rng.normal(size=(2, columns)), np.array([[2.0, 0.3], [0.3, 1.0]])
    p = gj.from_precision(Z, precision.astype(np.float32))
    noise = gj.from_root(Z, factor.astype(np.float32))
    own, other = np.linalg.inv(precision), factor @ factor.T
    gain = own @ np.linalg.inv(own + other)
    evidence = multivariate_normal([0, 0], own + other).logpdf(y)
    for mask in (None, np.ones(2, bool)):
        posterior, log_evidence = gj.observe(p, jnp.eye(2), noise, y, mask=mask)
        close(posterior.mean, gain @ y)
        close(gj.covariance(posterior), own - gain @ own)
        close(log_evidence, evidence)
    for law, log_normalizer, mean in (
        (*gj.product(p, gj.shift(noise, y)), gain @ y),
        (*gj.product(noise, gj.shift(p, y)), y - gain @ y),
    ):
        close(law.mean, mean)
        close(gj.covariance(law), own - gain @ own)
        close(log_normalizer, evidence)


def test_an_improper_precision_meets_a_regular_root():
    improper = gj.Gaussian(Z, gj.PrecisionCholesky(jnp.array([[1.0, 0.0], [0.0, 0.0]])))
    for law, log_normalizer in (
        gj.product(improper, gj.from_root(jnp.array([1.0, 2.0]), jnp.eye(2))),
        gj.product(gj.from_root(jnp.array([1.0, 2.0]), jnp.eye(2)), improper),
    ):
        close(law.mean, [0.5, 2.0])
        assert log_normalizer == -jnp.inf


DIVIDED = {
    "root": SINGULAR["root"],
    "scale": gj.from_scale(Z, jnp.array([0.0, 2.0])),
    "isotropic": gj.from_scale(Z, 0.0),
}


@pytest.mark.parametrize("kind", DIVIDED)
def test_what_divides_by_zero_is_infinite_or_nan(kind):
    q = DIVIDED[kind]
    on, off = {
        "root": ([0.15, 0.3], [0.15, -0.3]),
        "scale": ([0.0, 2.0], [1e-3, 2.0]),
        "isotropic": ([0.0, 0.0], [0.0, 1e-3]),
    }[kind]
    assert gj.logdet(q) == gj.entropy(q) == -jnp.inf
    for function in (gj.whiten, gj.score):
        assert np.isnan(function(q, on)).all()
    assert np.isnan(gj.solve(q, jnp.ones(2))).all()
    assert np.isnan(np.diagonal(gj.precision(q))).all()
    close(gj.mahalanobis(q, on), 0.0 if kind == "isotropic" else 1.0)
    np.testing.assert_array_equal(gj.mahalanobis(q, off), jnp.inf)
    np.testing.assert_array_equal(gj.log_prob(q, jnp.array([on, off])), [jnp.inf, -jnp.inf])
    assert gj.log_prob_on_support(q, off) == -jnp.inf


@pytest.mark.parametrize("d", [2, 6, 7, 17, 48, 70])
def test_a_cholesky_factor_with_a_column_of_zeros_has_a_density_on_its_support(d):
    rng = np.random.default_rng(d)
    lower = np.tril(rng.normal(size=(d, d)), -1) / d + np.eye(d)
    lower[:, d // 2] = 0
    lower, z = lower.astype(np.float32), rng.normal(size=d).astype(np.float32)
    z[d // 2] = 0
    on = (lower @ z).astype(np.float32)
    off = on + 0.1 * np.eye(d, dtype=np.float32)[d // 2]
    regular, lost = np.eye(d, dtype=np.float32), lower.copy()
    lost[-1, d // 2] = 1 if d // 2 < d - 1 else 0
    batch = jnp.stack([lower, regular, lost])
    g = gj.Gaussian(jnp.zeros(d), gj.Cholesky(jnp.asarray(lower)))
    for function in (gj.whiten, gj.score):
        assert np.isnan(function(g, on)).all()
    distances = gj.mahalanobis(g, np.stack([on, off]))
    np.testing.assert_allclose(distances, [z @ z, np.inf], rtol=1e-4)
    np.testing.assert_array_equal(gj.log_prob(g, np.stack([on, off])), [np.inf, -np.inf])
    values = jax.vmap(lambda x: gj.log_prob(gj.Gaussian(jnp.zeros(d), gj.Cholesky(x)), off))(batch)
    expected = -0.5 * (off @ off + d * np.log(2 * np.pi))
    np.testing.assert_allclose(values[:2], [-np.inf, expected], rtol=1e-5)
    assert np.isnan(values[2]) or d == 2  # where the column that is lost is the last one
    assert gj.entropy(g) == -jnp.inf
    assert gj.kl_divergence(gj.standard(d), g) == gj.kl_divergence(g, gj.standard(d)) == jnp.inf
    assert gj.rank(g) == d - 1
    exact = multivariate_normal(np.zeros(d), lower.astype(float) @ lower.T, allow_singular=True)
    close(gj.log_prob_on_support(g, jnp.zeros(d)), exact.logpdf(np.zeros(d)), rtol=1e-5)


def test_the_density_on_the_support_is_scipys():
    rng = np.random.default_rng(0)
    for d, k, r in ((5, 3, 3), (4, 7, 4), (6, 4, 2), (20, 30, 7)):
        factor = rng.normal(size=(d, r)) @ rng.normal(size=(r, k))
        factor, mean = factor.astype(np.float32), rng.normal(size=d).astype(np.float32)
        g, x = gj.from_root(mean, factor), mean + factor @ rng.normal(size=k).astype(np.float32)
        exact = factor.astype(float)
        expected = multivariate_normal(mean, exact @ exact.T, allow_singular=True).logpdf(x)
        close(gj.log_prob_on_support(g, x), expected, rtol=1e-5)
        assert gj.rank(g) == r
        if r == d:
            close(gj.log_prob(g, x), expected, rtol=1e-5)
        else:
            assert gj.log_prob(g, x) == jnp.inf
            assert gj.log_prob(g, x + rng.normal(size=d).astype(np.float32)) == -jnp.inf
    g = gj.from_variance(jnp.zeros(3), jnp.array([1.0, 0.0, 3.0]))
    expected = multivariate_normal([0] * 3, np.diag([1, 0, 3]), allow_singular=True).logpdf([0] * 3)
    close(gj.log_prob_on_support(g, jnp.zeros(3)), expected)


def test_the_density_on_the_support_has_gradients_within_it():
    factor = np.array([[1.0, 0.5], [0.3, 2.0], [1.3, 2.5]])  # the third row is the sum of the two
    x = factor @ [0.4, -0.7]
    with jax.enable_x64(True):

        def value(change, x):
            g = gj.from_root(jnp.zeros(3), factor @ (jnp.eye(2) + change))
            return gj.log_prob_on_support(g, x)

        def regular(change, x):  # the first two coordinates say all; the volume is a constant more
            return gj.log_prob(gj.from_root(jnp.zeros(2), (factor @ (np.eye(2) + change))[:2]), x)

        got = jax.grad(value, 0)(jnp.zeros((2, 2)), x)
        expected = jax.grad(regular, 0)(jnp.zeros((2, 2)), x[:2])
        np.testing.assert_allclose(got, expected, rtol=1e-10)
        moved = factor @ np.array([1.0, 2.0])
        got = jax.jvp(lambda x: value(jnp.zeros((2, 2)), x), (x,), (moved,))[1]
        expected = jax.jvp(lambda x: regular(jnp.zeros((2, 2)), x), (x[:2],), (moved[:2],))[1]
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_kl_with_a_singular_law_is_infinite_zero_or_nan():
    q, diagonal = SINGULAR["root"], gj.from_scale(Z, jnp.array([0.0, 1.0]))
    for singular in (q, diagonal, SINGULAR["cholesky"]):
        assert gj.kl_divergence(REGULAR, singular) == jnp.inf
        assert gj.kl_divergence(singular, REGULAR) == jnp.inf
        assert gj.kl_divergence(singular, singular) == 0
    assert np.isnan(gj.kl_divergence(q, gj.from_root(Z, 2 * W)))
    assert np.isnan(gj.kl_divergence(q, diagonal))
    wider = gj.from_scale(Z, jnp.array([0.0, 2.0]))
    close(gj.kl_divergence(diagonal, wider), np.log(2) + 1 / 8 - 1 / 2)
    assert gj.kl_divergence(gj.shift(diagonal, jnp.array([1.0, 0.0])), wider) == jnp.inf


def test_a_root_with_independent_rows_is_a_regular_law():
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(3, 5)).astype(np.float32)
    g, x = gj.from_root(jnp.ones(3), factor), rng.normal(size=3).astype(np.float32)
    same = gj.from_covariance(jnp.ones(3), factor @ factor.T)
    close(gj.log_prob(g, x), gj.log_prob(same, x), rtol=1e-5)
    close(gj.score(g, x), gj.score(same, x), rtol=1e-4)
    close(gj.kl_divergence(g, same), 0.0, atol=1e-6)
    close(gj.kl_divergence(gj.standard(3), g), gj.kl_divergence(gj.standard(3), same), rtol=1e-5)


def test_roots_of_semidefinite_matrices_have_gradients_at_repeated_eigenvalues():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0][:, :3]
    matrix = basis @ basis.T  # eigenvalues 1, 1, 1 and 0
    weights = np.random.default_rng(1).normal(size=(4, 4))
    with jax.enable_x64(True):
        for rank in (None, 3):
            slope = jax.grad(
                lambda m, rank=rank: jnp.sum(
                    weights * gj.covariance(gj.from_semidefinite(jnp.zeros(4), m, rank=rank))
                )
            )(matrix)
            sym, out = 0.5 * (weights + weights.T), np.eye(4) - matrix
            np.testing.assert_allclose(slope, sym - out @ sym @ out, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 2, 2), (12, 4, 4), (12, 12, 11), (20, 30, 7), (6, 6, 6)])
def test_a_root_is_singular_exactly_where_its_rank_says_so(shape):
    """One in twenty of three rows and two columns was a regular law."""
    d, k, r = shape
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(300, d, r)) @ rng.normal(size=(300, r, k))
    g = gj.from_root(jnp.zeros(d), factor.astype(np.float32))
    np.testing.assert_array_equal(gj.rank(g), r)
    np.testing.assert_array_equal(np.isneginf(gj.logdet(g)), r < d)


def test_a_batch_of_laws_may_have_one_that_is_singular():
    factors = jnp.stack([jnp.eye(2), jnp.concatenate([W, W], axis=1), 2 * jnp.eye(2)])
    g, x = gj.from_root(jnp.zeros((3, 2)), factors), jnp.array([0.15, 0.3])
    np.testing.assert_array_equal(gj.rank(g), [2, 1, 2])
    values, slopes = jax.vmap(
        jax.value_and_grad(lambda f: gj.log_prob(gj.from_root(Z, f), x))
    )(factors)  # fmt: skip
    regular = gj.from_isotropic(jnp.zeros((2, 2)), jnp.array([1.0, 2.0]))
    close(values[::2], gj.log_prob(regular, x))
    assert values[1] == jnp.inf
    assert np.isfinite(slopes[::2]).all()


SENTENCES = {
    r"from_semidefinite and from_root": lambda: gj.from_covariance(Z, W @ W.T),
    r"matrix must not have a negative eigenvalue": lambda: gj.from_semidefinite(
        Z, jnp.array([[1.0, 0.0], [0.0, -1.0]])
    ),
    r"rank must be at most 2": lambda: gj.from_semidefinite(Z, jnp.eye(2), rank=3),
    r"tolerance must not be negative": lambda: gj.from_semidefinite(
        Z, jnp.eye(2), tolerance=-1.0
    ),
    r"tolerance must be one number": lambda: gj.from_semidefinite(
        Z, jnp.eye(2), tolerance=[0.1, 0.2]
    ),
    r"tolerance must be a static number": lambda: jax.jit(
        lambda t: gj.mean(gj.from_semidefinite(Z, jnp.eye(2), tolerance=t))
    )(0.1),
    r"factor must be finite": lambda: gj.from_root(Z, jnp.array([[1.0], [jnp.nan]])),
    r"use from_covariance": lambda: gj.from_cholesky(Z, jnp.array([[2.0, 1.0], [1.0, 2.0]])),
    r"scale must be finite and not negative": lambda: gj.from_scale(Z, jnp.array([1.0, -1.0])),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_no_law_is_gets_a_sentence(sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        SENTENCES[sentence]()


# No covariance at all ----------------------------------------------------------------------------

ONE = gj.Isotropic(jnp.array(1.0), 1)
NEGATIVE = {
    "diagonal": gj.Diagonal(jnp.array([-1.0, 1.0])),
    "isotropic": gj.Isotropic(jnp.array(-1.0), 2),
    "infinite": gj.Diagonal(jnp.array([jnp.inf, 1.0])),
    "cholesky": gj.Cholesky(jnp.array([[-1.0, 0.0], [0.0, 1.0]])),
    "precision": gj.PrecisionCholesky(jnp.array([[-1.0, 0.0], [0.0, 1.0]])),
    "low_rank": gj.LowRank(jnp.array([-1.0, 1.0]), jnp.ones((2, 1))),
    "circulant": gj.Circulant(jnp.array([-1.0, 3.0])),
    "banded": gj.BandedPrecision(jnp.array([[-1.0, 1.0]])),
    "kronecker": gj.Kronecker((gj.Diagonal(jnp.array([-1.0, 1.0])), ONE)),
    "blocks": gj.BlockDiagonal((gj.Diagonal(jnp.array([-1.0])), ONE)),
    "stacked": gj.StackedBlocks(gj.Diagonal(jnp.array([[-1.0], [1.0]]))),
    "root": gj.Root(jnp.array([[jnp.nan], [1.0]])),
    "kronecker and noise": gj.add(
        gj.Kronecker((gj.Diagonal(jnp.array([-1.0, 1.0])), ONE)), gj.Isotropic(jnp.array(1.0), 2)
    ),
    "sum": gj.Sum(gj.Diagonal(jnp.array([-1.0, 1.0])), gj.Isotropic(jnp.array(1.0), 2)),
}
FAR = jnp.array([jnp.inf, 1.0])
QUESTIONS = {
    "log_prob": lambda g: gj.log_prob(g, jnp.ones(2)),
    "mahalanobis": lambda g: gj.mahalanobis(g, jnp.ones(2)),
    "log_prob, far": lambda g: gj.log_prob(g, FAR),
    "mahalanobis, far": lambda g: gj.mahalanobis(g, FAR),
    "log_prob_on_support, far": lambda g: gj.log_prob_on_support(g, FAR),
    "log_prob_observed, far": lambda g: gj.log_prob_observed(g, FAR, mask=np.ones(2, bool)),
    "score": lambda g: gj.score(g, jnp.ones(2)),
    "whiten": lambda g: gj.whiten(g, jnp.ones(2)),
    "sample": lambda g: gj.sample(jax.random.key(0), g),
    "variance": gj.variance,
    "covariance": gj.covariance,
    "entropy": gj.entropy,
    "affine": lambda g: gj.covariance(gj.affine(g, jnp.eye(2))),
    "condition": lambda g: gj.mean(gj.condition(g, [0], jnp.ones(1))),
    "kl": lambda g: gj.kl_divergence(g, gj.standard(2)),
    "kl of precision": lambda g: gj.kl_divergence(g, gj.from_precision(Z, jnp.eye(2))),
    "kl from": lambda g: gj.kl_divergence(gj.standard(2), g),
    "trace": lambda g: gj.trace_solve(gj.Isotropic(jnp.array(1.0), 2), g.cov),
}


@pytest.mark.parametrize("kind", NEGATIVE)
def test_what_is_no_covariance_gives_nan(kind):
    g = gj.Gaussian(Z, NEGATIVE[kind])
    finite = {name for name, ask in QUESTIONS.items() if not np.isnan(ask(g)).all()}
    assert finite == set()
    np.testing.assert_array_equal(gj.mean(g), Z)
    with pytest.raises(ValueError, match="not valid"):
        check_gaussian(g)


def test_what_takes_the_inverse_of_an_indefinite_toeplitz_matrix_is_nan():
    g = gj.Gaussian(jnp.zeros(3), gj.Toeplitz(jnp.array([1.0, 2.0, 0.5])))
    x, p = jnp.ones(3), gj.standard(3)
    asked = {
        "log_prob": gj.log_prob(g, x),
        "mahalanobis": gj.mahalanobis(g, x),
        "score": gj.score(g, x),
        "whiten": gj.whiten(g, x),
        "entropy": gj.entropy(g),
        "kl": gj.kl_divergence(g, p),
        "kl from": gj.kl_divergence(p, g),
        "trace": gj.trace_solve(p.cov, g.cov),
    }
    assert {name for name, value in asked.items() if not np.isnan(value).all()} == set()
    with pytest.raises(ValueError, match="not valid"):
        check_gaussian(g)


def test_a_singular_law_is_valid():
    for g in SINGULAR.values():
        check_gaussian(g)


def test_numbers_below_a_diagonal_that_are_not_finite_are_reported():
    g = gj.Gaussian(Z, gj.Cholesky(jnp.array([[1.0, 0.0], [jnp.nan, 1.0]])))
    with pytest.raises(ValueError, match="not valid"):
        check_gaussian(g)


# Filters -----------------------------------------------------------------------------------------

OBSERVED = np.random.default_rng(0).normal(size=(2, 8, 1))  # two series


def constant_velocity(step, kick, noise):
    """Of position and velocity, pushed at random: the noise of the process has rank one."""
    one, zero = jnp.ones_like(step), jnp.zeros_like(step)
    transition = jnp.stack([jnp.stack([one, step]), jnp.stack([zero, one])])
    push = kick * jnp.stack([step**2 / 2, step])[:, None]
    return transition, push, jnp.array([[1.0, 0.0]]), noise


def without_process_noise(step, kick, noise):
    transition, push, look, noise = constant_velocity(step, kick, noise)
    return transition, 0 * push, look, noise


def velocity_first(step, kick, noise):
    """The same in the other order: a zero pivot comes first."""
    transition, push, look, noise = constant_velocity(step, kick, noise)
    return transition[::-1, ::-1], 0 * push, look[:, ::-1], noise


def autoregression(first, kick, second):
    """AR(2) in companion form, seen without noise."""
    transition = jnp.stack([jnp.stack([first, second]), jnp.array([1.0, 0.0], first.dtype)])
    push, look = jnp.array([[1.0], [0.0]], kick.dtype), jnp.array([[1.0, 0.0]], kick.dtype)
    return transition, kick * push, look, jnp.zeros_like(kick)


FILTERS = {
    "constant velocity": (constant_velocity, [1.0, 0.3, 0.5], [2.0, 1.0]),
    "known initial velocity": (constant_velocity, [1.0, 0.3, 0.5], [2.0, 0.0]),
    "no process noise": (without_process_noise, [1.0, 0.3, 0.5], [2.0, 0.0]),
    "known velocity first": (velocity_first, [1.0, 0.3, 0.5], [0.0, 2.0]),
    "autoregression": (autoregression, [0.5, 0.7, 0.3], [1.0, 1.2]),
    "autoregression from a known past": (autoregression, [0.5, 0.7, 0.3], [1.0, 0.0]),
}


def filtered(model, parameters, start, series):
    transition, push, look, noise = model(*parameters)
    start = gj.broadcast_to(gj.as_cholesky(gj.from_scale(Z, start)), series.shape[:1])
    process = gj.from_root(jnp.zeros_like(start.mean[0]), push)
    error = gj.from_scale(jnp.zeros(1, push.dtype), noise[None])

    def step(law, y):
        seen = gj.observe(law, look, error, y)
        following = gj.convolve(gj.affine(seen.posterior, transition), process)
        return gj.as_cholesky(following), seen

    _, seen = jax.lax.scan(step, start, jnp.moveaxis(series, 1, 0))
    return jnp.sum(seen.log_evidence), seen.posterior


def textbook(model, parameters, start, series):
    """The filter in covariances, of one series."""
    transition, push, look, noise = model(*parameters)
    mean, cov, value, means, covs = jnp.zeros(2), jnp.diag(start**2), 0.0, [], []
    for y in series:
        variance = (look @ cov @ look.T)[0, 0] + noise**2
        rest, gain = (y - look @ mean)[0], (cov @ look.T)[:, 0] / variance
        value += -0.5 * (rest**2 / variance + jnp.log(2 * jnp.pi * variance))
        mean, cov = mean + gain * rest, cov - jnp.outer(gain, gain) * variance
        means.append(mean)
        covs.append(cov)
        mean, cov = transition @ mean, transition @ cov @ transition.T + push @ push.T
    return value, (jnp.stack(means), jnp.stack(covs))


@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_singular_laws_are_those_of_float64(name):
    model, parameters, start = FILTERS[name]
    with jax.enable_x64(True):
        wide = [jnp.asarray(p, jnp.float64) for p in parameters]

        def total(parameters):
            found = [textbook(model, parameters, jnp.asarray(start), y) for y in OBSERVED]
            return found[0][0] + found[1][0], [f[1] for f in found]

        (value, laws), slopes = quick_jit(jax.value_and_grad(total, has_aux=True))(wide)
    narrow = [jnp.asarray(p, jnp.float32) for p in parameters]
    series = OBSERVED.astype(np.float32)

    def ours(parameters):
        return filtered(model, parameters, jnp.array(start, jnp.float32), series)

    (got, posterior), found = quick_jit(jax.value_and_grad(ours, has_aux=True))(narrow)
    close(got, value, rtol=1e-6)
    close(found, slopes, rtol=1e-5, atol=1e-5)
    for i, (means, covs) in enumerate(laws):
        close(posterior.mean[:, i], means, rtol=1e-5, atol=1e-6)
        close(gj.covariance(posterior)[:, i], covs, rtol=1e-5, atol=1e-6)


def smoothed_in_a_plane(transition, push, noise, start):
    """Evidence, and a sum over the smoothed laws, of two positions and their velocities."""
    zero, look = jnp.zeros(4, push.dtype), jnp.asarray(np.kron(np.eye(2), [[1.0, 0.0]]), push.dtype)
    process = gj.from_root(zero, push)
    error = gj.from_cholesky(jnp.zeros(2, push.dtype), noise)

    def step(law, y):
        seen, evidence = gj.observe(law, look, error, y, mask=~jnp.isnan(y))
        return gj.convolve(gj.affine(seen, transition), process), (seen, evidence)

    def back(following, law):
        law = gj.smooth_step(law, transition, process, following)
        return law, law

    series = jnp.asarray(IN_A_PLANE, push.dtype)
    _, (seen, evidence) = jax.lax.scan(step, gj.from_root(zero, jnp.diag(start)), series)
    last, before = gj.take(seen, -1), gj.take(seen, slice(-1))
    _, laws = jax.lax.scan(back, last, before, reverse=True)
    return jnp.sum(evidence), jnp.sum(laws.mean) + jnp.sum(gj.variance(laws))


def textbook_in_a_plane(transition, push, noise, start):
    look, noise = jnp.kron(jnp.eye(2), jnp.array([[1.0, 0.0]])), jnp.tril(noise)
    mean, cov, value, laws = jnp.zeros(4), jnp.diag(start**2), 0.0, []
    for y in IN_A_PLANE:
        there = np.flatnonzero(~np.isnan(y))
        h = look[there]
        variance = h @ cov @ h.T + (noise @ noise.T)[np.ix_(there, there)]
        gain = jnp.linalg.solve(variance, h @ cov).T
        rest = y[there] - h @ mean
        distance = rest @ jnp.linalg.solve(variance, rest)
        value -= 0.5 * (jnp.linalg.slogdet(2 * np.pi * variance)[1] + distance)
        mean, cov = mean + gain @ rest, cov - gain @ variance @ gain.T
        laws.append((mean, cov))
        mean, cov = transition @ mean, transition @ cov @ transition.T + push @ push.T
    (mean, cov), total = laws.pop(), 0.0
    for old, wide in laws[::-1]:
        predicted = transition @ wide @ transition.T + push @ push.T
        gain = jnp.linalg.solve(predicted, transition @ wide).T
        mean = old + gain @ (mean - transition @ old)
        cov = wide + gain @ (cov - predicted) @ gain.T
        total += jnp.sum(mean) + jnp.trace(cov)
    return value, total


IN_A_PLANE = np.random.default_rng(1).normal(size=(6, 2))
IN_A_PLANE[2], IN_A_PLANE[4, 1] = np.nan, np.nan


@pytest.mark.parametrize("start", [(2.0, 0.0, 2.0, 0.0), (0.0, 1.0, 0.0, 1.0)])
def test_filters_and_smoothers_of_roots_have_gradients_in_what_is_known(start):
    """In the dynamics, where each velocity is known, or each position: no triangle has them."""
    axes = np.eye(2)
    arrays = (
        np.kron(axes, [[1.0, 1.0], [0.0, 1.0]]), np.kron(axes, [[0.1], [0.2]]),
        np.array([[0.5, 0.0], [0.3, 0.4]]), np.array(start),
    )  # fmt: skip

    def both(function, dtype):
        def run(i):
            jacobian = jax.jacrev(function, (0, 1, 2, 3))
            return quick_jit(lambda *a: (function(*a), jacobian(*a)))(*i)

        return run([jnp.asarray(np.float32(a), dtype) for a in arrays])

    with jax.enable_x64(True):
        values, slopes = both(textbook_in_a_plane, jnp.float64)
    got, found = both(smoothed_in_a_plane, jnp.float32)
    close(got, values, rtol=1e-6)
    for gradients, expected in zip(found, slopes, strict=True):
        for gradient, right in zip(gradients, expected, strict=True):
            close(gradient, right, rtol=0, atol=2e-5 * np.abs(right).max())


PARTING = (
    "noise",
    "joint",
    "posterior",
    "product",
    "factor",
    "sum",
    "condition",
    "condition_where",
)


@pytest.mark.parametrize("parts", PARTING)
def test_a_root_stays_a_root_whose_dependent_rows_may_part(parts):
    """The slope at a coordinate that is known, of the density of what comes of it."""
    y = jnp.array([1.0, 2.0])

    def law(t):
        return gj.from_root(jnp.zeros(2), jnp.stack([t, jnp.ones_like(t)])[:, None])

    def value(t):
        g = law(t)
        if parts == "noise":
            return gj.observe(gj.standard(2), jnp.eye(2), g, y, mask=y > 0).log_evidence
        if parts == "joint":
            g = gj.joint(g, jnp.eye(2), gj.standard(2))
        elif parts == "posterior":
            g = gj.observe(g, jnp.array([[0.0, 1.0]]), gj.standard(1), y[1:]).posterior
        elif parts in ("product", "factor"):
            dense = gj.from_cholesky(y, jnp.array([[1.0, 0.0], [0.5, 1.0]]))
            g = gj.product(*((g, dense) if parts == "product" else (dense, g))).gaussian
        elif parts == "sum":
            g = gj.convolve(g, gj.from_low_rank(0.0, jnp.zeros(2), jnp.array([[0.0], [0.5]])))
        else:
            wider = gj.from_root(jnp.zeros(3), jnp.stack([t, t + 1, t * 0.5 + 2])[:, None])
            seen = gj.convolve(wider, gj.from_root(jnp.zeros(3), jnp.eye(3)[:, 1:]))
            if parts == "condition":
                g = gj.condition(seen, [1], y[:1])
            else:
                mask = jnp.array([False, True, False])
                g = gj.marginal(gj.condition_where(seen, jnp.ones(3), mask=mask), [0, 2])
        seen = gj.convolve(g, gj.standard(g.dim))
        assert isinstance(g.cov, gj.Root)
        return gj.log_prob(seen, jnp.arange(1.0, g.dim + 1))

    ahead, behind = (value(jnp.float32(t)) for t in (1e-2, -1e-2))
    slope = jax.grad(value)(jnp.float32(0.0))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-2, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("width", [0.0, 1e-2])
def test_what_is_left_of_a_root_has_the_rank_that_it_should(width):
    """Exactly, however few digits of the rest are left: it is not told from rounding by size."""
    rng = np.random.default_rng(0)
    factor = jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)
    prior, y = gj.from_root(jnp.zeros(4), factor), jnp.array([1.0, 2.0])
    matrix = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    posterior, _ = gj.observe(prior, matrix, gj.from_scale(jnp.zeros(2), width), y)
    assert gj.rank(posterior) == (2 if width else 0)
    assert posterior.cov.factor.shape == factor.shape
    one = gj.observe(prior, matrix[:1], gj.from_scale(jnp.zeros(1), width), y[:1]).posterior
    assert gj.rank(one) == (2 if width else 1)
    if width == 0:
        x = factor @ y
        mask = jnp.array([True, False, False, True])
        others = gj.condition(prior, [0, 3], x[np.array([0, 3])])
        where = gj.condition_where(prior, x, mask=mask)
        for g in (posterior, others, where):
            assert gj.rank(g) == 0
            assert gj.entropy(g) == -jnp.inf
            np.testing.assert_array_equal(gj.stddev(g), np.zeros(g.dim))
        close(where.mean, x, rtol=1e-5)


@pytest.mark.parametrize("noise", ["low_rank", "scale", "cholesky", "root"])
def test_a_scan_carries_a_root_with_process_noise_of_any_structure(noise):
    process = {
        "low_rank": gj.from_low_rank(0.0, jnp.zeros(2), jnp.array([[0.5], [1.0]])),
        "scale": gj.from_scale(jnp.zeros(2), jnp.array([0.0, 0.1])),
        "cholesky": gj.from_cholesky(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.5, 1.0]])),
        "root": gj.from_root(jnp.zeros(2), jnp.array([[0.5], [1.0]])),
    }[noise]
    look, move = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 1.0], [0.0, 1.0]])
    error = gj.from_scale(jnp.zeros(1), 0.1)

    def evidence(start, like):
        def step(law, y):
            seen, value = gj.observe(law, look, error, y)
            return like(gj.convolve(gj.affine(seen, move), process)), value

        return jax.lax.scan(step, start, jnp.array([[1.0], [1.5], [3.0]]))[1]

    start = gj.from_root(jnp.zeros(2), jnp.diag(jnp.array([1.0, 0.0])))
    expected = evidence(gj.as_cholesky(start), gj.as_cholesky)
    close(evidence(start, lambda law: law), expected, rtol=2e-6)


def test_the_sum_of_a_root_and_a_triangle_is_as_the_first():
    root, triangle = gj.Root(jnp.ones((2, 1))), gj.Cholesky(jnp.array([[1.0, 0.0], [0.5, 1.0]]))
    assert isinstance(gj.add(root, triangle), gj.Root)
    assert isinstance(gj.add(triangle, root), gj.Cholesky)


@pytest.mark.parametrize("kind", ["cholesky", "diagonal", "precision", "toeplitz"])
def test_a_map_with_dependent_rows_is_singular(kind):
    prior, cov = STRUCTURES[kind](np.random.default_rng(0), 3, np.float32)
    g = gj.Gaussian(jnp.zeros(3), prior)
    rows = np.array([[1, 2, 0.5], [2, 4, 1], [0.3, -1, 2]], np.float32)
    for matrix in (rows, rows[:2], rows * np.array([[1e5], [1], [1e-4]], np.float32)):
        law = gj.affine(g, matrix)
        assert int(gj.rank(law)) == len(matrix) - 1
        assert gj.log_prob(law, np.ones(len(matrix), np.float32)) == -np.inf
        assert gj.entropy(law) == -np.inf
        expected = matrix @ cov @ matrix.T
        size = np.sqrt(np.diag(expected))
        np.testing.assert_allclose(gj.covariance(law) / np.outer(size, size),
                                   expected / np.outer(size, size), atol=1e-5)  # fmt: skip
    slopes = jax.grad(lambda a: jnp.sum(gj.variance(gj.affine(g, a))))(jnp.asarray(rows))
    np.testing.assert_allclose(slopes, 2 * rows @ cov, rtol=1e-4, atol=1e-4)


OF_ALL_STRUCTURES = {
    "low_rank": gj.LowRank(jnp.zeros(2), jnp.array([[1.0], [2.0]])),
    "scaled": gj.Scaled(gj.Toeplitz(jnp.array([1.0, 0.5])), jnp.array([1.0, 0.0])),
    "circulant": gj.Circulant(jnp.array([1.0, 0.0])),
    "block_diagonal": gj.BlockDiagonal((gj.Diagonal(jnp.zeros(1)), gj.Diagonal(jnp.ones(1)))),
    "kronecker": gj.Kronecker(
        (gj.Diagonal(jnp.ones(1)), gj.Cholesky(jnp.array([[1.0, 0.0], [1.0, 0.0]])))
    ),
}


@pytest.mark.parametrize("kind", OF_ALL_STRUCTURES)
def test_a_regular_law_is_infinitely_far_from_any_singular_one(kind):
    p, q = gj.standard(2), gj.Gaussian(jnp.zeros(2), OF_ALL_STRUCTURES[kind])
    dense = gj.as_cholesky(gj.affine(p, jnp.array([[1.0, 0.2], [0.3, 2.0]])))
    for regular in (p, dense):
        assert gj.kl_divergence(regular, q) == gj.kl_divergence(q, regular) == jnp.inf
        assert not np.isfinite(gj.cross_entropy(regular, q))
    assert gj.kl_divergence(q, q) == 0


@pytest.mark.parametrize(
    "cov",
    [gj.Toeplitz(jnp.array([1.0, 2.0])), gj.Cholesky(jnp.array([[1.0, 0.0], [jnp.nan, 1.0]]))],
    ids=lambda cov: type(cov).__name__,
)
def test_no_law_has_a_density_on_the_support_of_what_is_no_covariance(cov):
    assert np.isnan(gj.log_prob_on_support(gj.Gaussian(jnp.zeros(2), cov), jnp.ones(2)))


def test_an_infinite_entry_is_no_distance():
    for d in (2, 20, 70):
        lower = jnp.eye(d).at[1, 0].set(jnp.inf)
        g = gj.Gaussian(jnp.zeros(d), gj.Cholesky(lower))
        assert np.isnan(gj.log_prob(g, jnp.ones(d)))
