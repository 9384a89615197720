"""Observations with entries that are missing, and the smoother's step."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracle
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


def test_a_smoothing_step_has_gradients_where_position_and_velocity_move_as_one():
    """What is left of x given x' is singular, in the middle of its triangle too."""
    rng, axes = np.random.default_rng(0), np.eye(2)
    weights = rng.normal(size=(4, 4))
    arrays = (
        np.kron(axes, [[1.0, 1.0], [0.0, 1.0]]), np.kron(axes, [[0.1], [0.2]]),
        np.eye(4) + 0.3 * np.tril(rng.normal(size=(4, 4)), -1),
    )  # fmt: skip

    def value(transition, push, lower):
        zero = jnp.zeros(4, lower.dtype)
        smoothed = gj.smooth_step(
            gj.Gaussian(zero, gj.Cholesky(lower)), transition, gj.from_root(zero, push),
            gj.Gaussian(zero + 1, gj.Cholesky(0.3 * lower)),
        )  # fmt: skip
        return jnp.sum(jnp.asarray(weights, lower.dtype) * gj.covariance(smoothed)) + jnp.sum(
            smoothed.mean
        )

    def textbook(transition, push, lower):
        lower = jnp.tril(lower)
        cov = lower @ lower.T
        predicted = transition @ cov @ transition.T + push @ push.T
        gain = jnp.linalg.solve(predicted, transition @ cov).T
        smoothed = cov + gain @ (0.09 * cov - predicted) @ gain.T
        return jnp.sum(weights * smoothed) + jnp.sum(gain @ jnp.ones(4))

    with jax.enable_x64(True):
        expected = jax.grad(textbook, (0, 1, 2))(*map(jnp.asarray, arrays))
    for dtype, bound in (np.float32, 1e-4), (np.float64, 1e-12):
        with jax.enable_x64(dtype is np.float64):
            got = jax.grad(value, (0, 1, 2))(*(jnp.asarray(x, dtype) for x in arrays))
        for gradient, right in zip(got, expected, strict=True):
            np.testing.assert_allclose(gradient, right, rtol=0, atol=bound * np.abs(right).max())


UNEQUAL = {  # prior, matrix, noise, y
    "wide and narrow, two precise": (
        [[0.01315, 0.0], [-445755.0, 835693.0]], [[1.03, 0.47], [0.98, -0.31]],
        [[1.3e-3, 0.0], [0.0, 1.3e-3]], [1.0, 2.0],
    ),
    "one precise": ([[2e3, 0.0], [1e3, 1.0]], [[1.0, -0.5]], [[1e-4]], [0.3]),
    "precise and noisy": (
        [[1.0, 0.0], [0.5, 2.0]], [[1.0, 0.2], [0.9, 0.3], [0.1, 1.0]],
        [[1e4, 0.0, 0.0], [0.0, 1e-4, 0.0], [0.0, 0.5, 1e2]], [0.5, 0.1, 3.0],
    ),
    "one coordinate": ([[1e5]], [[3.0], [1.0]], [[1e-3, 0.0], [1e-3, 1.0]], [1.0, 0.5]),
    "exact": ([[1e4, 0.0], [3e3, 5e3]], [[0.5, 1.0]], [[0.0]], [2.0]),
    "a narrow one fixes a wide one": (
        [[1e4, 0.0, 0.0], [0.0, 1e-3, 0.0], [1.0, 0.0, 10.0]],
        [[1.0, 50.0, 0.0], [1.0, 50.0, 1.0]], [[1e-4, 0.0], [0.0, 1e-4]], [0.2, 0.4],
    ),
}  # fmt: skip


def exact_posterior(root, matrix, noise, y):
    """Mean, covariance and evidence in 60 digits."""
    f, h, r, y = (x if isinstance(x, mpmath.matrix) else exact(x) for x in (root, matrix, noise, y))
    prior, total = f * f.T, h * f * f.T * h.T + r * r.T
    gain = prior * h.T * total**-1
    evidence = (y.T * total**-1 * y)[0] + mpmath.log(mpmath.det(total * 2 * mpmath.pi))
    return gain * y, prior - gain * h * prior, -evidence / 2


def exact(array):
    return oracle.matrix(np.reshape(array, (len(array), -1)))


def slope(args, which, at):
    """Derivative of the evidence in one entry, by differences in 60 digits."""
    step, values = mpmath.mpf(10) ** -25, []
    for sign in (1, -1):
        moved = [exact(x) for x in args]
        moved[which][at] += sign * step
        values.append(exact_posterior(*moved)[2])
    return float((values[0] - values[1]) / (2 * step))


def floats(matrix):
    return np.array(matrix.tolist(), float)


@pytest.mark.parametrize("structure", [gj.Cholesky, gj.Root])
@pytest.mark.parametrize("case", UNEQUAL)
def test_precise_observations_of_what_is_known_badly_keep_their_digits(case, structure):
    root, matrix, noise, y = (np.array(x, np.float32) for x in UNEQUAL[case])
    prior = gj.Gaussian(jnp.zeros(len(root)), structure(root))
    errors = gj.Gaussian(jnp.zeros(len(y)), gj.Root(noise))
    posterior, value = jax.jit(gj.observe)(prior, matrix, errors, y)
    mean, cov, evidence = exact_posterior(root, matrix, noise, y)
    mean, cov, evidence = floats(mean)[:, 0], floats(cov), float(evidence)
    scale = np.sqrt(np.diag(cov))
    bar = 8 * (len(root) + len(y)) * np.finfo(np.float32).eps
    # A covariance that is rounding noise beside the prior's entries cannot be told from zero.
    floor = np.finfo(np.float32).eps * np.linalg.norm(root, axis=1) * (scale == 0)
    near = np.abs(posterior.mean - mean) <= bar * 8 * (scale + np.abs(mean)) + floor
    assert near.all(), (posterior.mean, mean, scale)
    (ours,) = (np.asarray(x, float) for x in jax.tree.leaves(posterior.cov))
    assert np.all(np.abs(ours @ ours.T - cov) <= bar * np.outer(scale, scale) + 1e-30)
    np.testing.assert_allclose(value, evidence, rtol=bar)


@pytest.mark.parametrize("case", UNEQUAL)
def test_so_do_their_derivatives(case):
    root, matrix, noise, y = (np.array(x, np.float32) for x in UNEQUAL[case])

    def value(root, matrix, y):
        prior = gj.Gaussian(jnp.zeros(len(root)), gj.Cholesky(root))
        return gj.observe(prior, matrix, gj.from_root(jnp.zeros(len(y)), noise), y)[1]

    slopes = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(root, matrix, y)
    args = root, matrix, noise, y
    for which, ours in zip((0, 1, 3), slopes, strict=True):
        array = np.reshape(args[which], (len(args[which]), -1))
        expected = [slope(args, which, at) for at in np.ndindex(*array.shape)]
        expected = np.tril(np.reshape(expected, array.shape), 0 if which == 0 else 9)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(np.reshape(ours, array.shape), expected, 1e-3, 1e-4 * scale)


@pytest.mark.parametrize("scale", [1e-2, 1e-4])
def test_a_prior_known_by_its_precision_keeps_the_digits_of_precise_observations(scale):
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(4, 4)) + 2 * np.eye(4)).astype(np.float32)
    matrix, y = (rng.normal(size=s).astype(np.float32) for s in ((2, 4), (2,)))
    prior = gj.Gaussian(jnp.zeros(4), gj.PrecisionCholesky(jnp.asarray(lower)))
    noise = gj.from_isotropic(jnp.zeros(2), jnp.float32(scale))
    posterior, value = gj.observe(prior, matrix, noise, y)
    # Σ = L⁻ᵀL⁻¹ in float64, of a triangle of condition about ten
    root, sizes = np.linalg.inv(lower.astype(float)).T, np.float32(scale) * np.eye(2)
    mean, cov, evidence = exact_posterior(exact(root), exact(matrix), exact(sizes), exact(y))
    deviations = np.sqrt(np.diag(floats(cov)))
    errors = np.abs(posterior.mean - floats(mean)[:, 0]) / deviations
    assert np.max(errors) < 1e-4
    np.testing.assert_allclose(value, float(evidence), rtol=1e-5)


def second_derivatives(function, *args):
    """Hessians in all four combinations of modes, as one vector each."""
    n = tuple(range(len(args)))
    modes = {
        "forward twice": jax.jacfwd(jax.jacfwd(function, n), n),
        "forward over reverse": jax.jacfwd(jax.grad(function, n), n),
        "reverse over forward": jax.jacrev(jax.jacfwd(function, n), n),
        "reverse twice": jax.jacrev(jax.grad(function, n), n),
    }
    return {
        mode: np.concatenate([np.ravel(x) for x in jax.tree.leaves(hessian(*args))])
        for mode, hessian in modes.items()
    }


def gaussian(lower):
    return gj.Gaussian(jnp.zeros(len(lower)), gj.Cholesky(lower))


def observed(root, matrix, noise):
    posterior, value = gj.observe(gaussian(root), matrix, gaussian(noise), jnp.ones(2))
    return value + jnp.sum(posterior.mean) + gj.covariance(posterior)[0, 1]


def textbook_observed(root, matrix, noise):
    root, noise = jnp.tril(root), jnp.tril(noise)
    prior = root @ root.T
    total = matrix @ prior @ matrix.T + noise @ noise.T
    gain, y = jnp.linalg.solve(total, matrix @ prior).T, jnp.ones(2)
    value = -0.5 * (y @ jnp.linalg.solve(total, y) + jnp.linalg.slogdet(2 * jnp.pi * total)[1])
    return value + jnp.sum(gain @ y) + (prior - gain @ matrix @ prior)[0, 1]


def summed(root, matrix, noise):
    lower = gj.linalg.factor_of_sum(jnp.tril(root), jnp.concatenate([matrix, noise], 1))
    return lower[1, 0] + jnp.sin(lower[1, 1])


def textbook_summed(root, matrix, noise):
    root = jnp.tril(root)
    lower = jnp.linalg.cholesky(root @ root.T + matrix @ matrix.T + noise @ noise.T)
    return lower[1, 0] + jnp.sin(lower[1, 1])


def smoothed(root, matrix, noise):
    law = gj.smooth_step(gaussian(root), matrix, gaussian(noise), gaussian(noise + root))
    return gj.covariance(law)[0, 1]


def textbook_smoothed(root, matrix, noise):
    root, noise = jnp.tril(root), jnp.tril(noise)
    prior, later = root @ root.T, (noise + root) @ (noise + root).T
    total = matrix @ prior @ matrix.T + noise @ noise.T
    gain = jnp.linalg.solve(total, matrix @ prior).T
    return (prior + gain @ (later - total) @ gain.T)[0, 1]


@pytest.mark.parametrize("noise", [1.0, 1e-3], ids=["noisy", "precise"])
@pytest.mark.parametrize(
    "pair",
    [(observed, textbook_observed), (summed, textbook_summed), (smoothed, textbook_smoothed)],
    ids=lambda pair: pair[0].__name__,
)
def test_second_derivatives_are_the_textbooks_in_every_mode(pair, noise):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        root, rest = (np.tril(rng.normal(size=(2, 2)) + 2 * np.eye(2)) for _ in range(2))
        args = [jnp.asarray(x) for x in (root, rng.normal(size=(2, 2)), noise * rest)]
        ours, textbook = (second_derivatives(function, *args) for function in pair)
        expected = textbook["forward twice"]
        for mode, found in ours.items():
            scale = np.max(np.abs(expected))
            np.testing.assert_allclose(found, expected, atol=1e-8 * scale, err_msg=mode)
