"""The divergences against 60-digit arithmetic, near and far, with their derivatives."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from catalogue import STRUCTURES, random_lower
from compiling import quick_jit

import gaussjax as gj

EPS = {np.float32: 2.0**-24, np.float64: 2.0**-53}
KINDS = ["isotropic", "diagonal", "cholesky", "precision"]  # those that `oracle` knows
FACTOR = {"isotropic": "scale", "diagonal": "scale", "cholesky": "lower", "precision": "lower"}


def nearby(rng, d, separation, dtype=np.float32):
    """Two factors and means one part in 1/separation apart, diagonals positive."""
    lower = random_lower(rng, d, dtype)
    other = (lower * (1 + separation * np.tril(rng.uniform(-1, 1, (d, d))))).astype(dtype)
    mean = rng.normal(size=d).astype(dtype)
    return mean, lower, (mean + separation * rng.normal(size=d)).astype(dtype), other


def gaussians(mean_p, lower_p, mean_q, lower_q, kind=gj.Cholesky):
    p, q = (
        gj.Gaussian(jnp.asarray(m), kind(jnp.asarray(f)))
        for m, f in ((mean_p, lower_p), (mean_q, lower_q))
    )
    return p, q


@pytest.mark.parametrize("kind", ["cholesky", "precision"])
@pytest.mark.parametrize(
    ("d", "separation"),  # 60 digits take four seconds at d = 64
    [*itertools.product((1, 2, 6, 16, 17), (1.0, 1e-2, 1e-4, 1e-6)), (64, 1e-4)],
)
def test_kl_is_exact_in_float32_at_any_separation(d, separation, kind):
    rng = np.random.default_rng(d)
    mean_p, lower_p, mean_q, lower_q = nearby(rng, d, min(separation, 0.3))
    p, q = gaussians(
        mean_p, lower_p, mean_q, lower_q, type(STRUCTURES[kind](rng, 1, np.float32)[0])
    )
    exact = oracle.kl(
        mean_p, oracle.covariance(kind, lower_p), mean_q, oracle.covariance(kind, lower_q)
    )
    # p and q are the rounded inputs, so the error left is that of a few hundred operations
    assert oracle.relative_error(gj.kl_divergence(p, q), exact) <= 5e-7


@pytest.mark.parametrize("kind", ["isotropic", "diagonal"])
def test_kl_of_diagonals_is_exact_at_any_separation(kind):
    scale = np.array([0.7, 1.3, 2.0], np.float32)
    for separation in (1.0, 1e-3, 1e-6):
        other = (scale * (1 + separation)).astype(np.float32)
        zero = np.zeros(3, np.float32)
        if kind == "isotropic":
            covs = [gj.Isotropic(jnp.asarray(s[0]), 3) for s in (scale, other)]
            scales = [np.repeat(s[0], 3) for s in (scale, other)]
        else:
            covs, scales = [gj.Diagonal(jnp.asarray(s)) for s in (scale, other)], [scale, other]
        value = gj.kl_divergence(*(gj.Gaussian(jnp.asarray(zero), c) for c in covs))
        exact = oracle.kl(
            zero,
            oracle.covariance("diagonal", scales[0]),
            zero,
            oracle.covariance("diagonal", scales[1]),
        )
        assert oracle.relative_error(value, exact) <= 5e-7


@pytest.mark.parametrize("narrow", [1e-2, 1e-4, 1e-6])
def test_kl_of_a_narrow_to_a_wide_gaussian_is_exact(narrow):
    """1 + r is zero to rounding there, and its logarithm was wrong by a thousandth of the KL."""
    scale = np.float32(narrow)
    exact = 0.5 * (float(scale) ** 2 - 1) - np.log(float(scale))
    flat = gj.Toeplitz(jnp.array([1.0, 0.0, 0.0])), gj.Toeplitz(jnp.array([scale**2, 0.0, 0.0]))
    ring = gj.Circulant(jnp.ones(3)), gj.Circulant(jnp.full(3, scale**2))
    chain = gj.BandedPrecision(jnp.ones((1, 3))), gj.BandedPrecision(jnp.full((1, 3), 1 / scale))
    triangle = gj.Cholesky(jnp.eye(3)), gj.Cholesky(scale * jnp.eye(3))
    big = gj.Cholesky(jnp.eye(17)), gj.Cholesky(scale * jnp.eye(17))
    line = gj.Diagonal(jnp.ones(3)), gj.Diagonal(jnp.full(3, scale))
    thin = gj.LowRank(jnp.ones(3), jnp.zeros((3, 1))), gj.LowRank(line[1].scale, jnp.zeros((3, 1)))
    for wide, other in (flat, ring, chain, triangle, big, line, thin):
        p, q = (gj.Gaussian(jnp.zeros(c.dim), c) for c in (other, wide))
        np.testing.assert_allclose(gj.kl_divergence(p, q), wide.dim * exact, rtol=5e-7)


@pytest.mark.parametrize("pair", list(itertools.product(KINDS, KINDS)), ids="-".join)
def test_kl_of_every_pair_matches_sixty_digits(pair):
    rng = np.random.default_rng(7)
    d = 4
    covs = [STRUCTURES[kind](rng, d, np.float32)[0] for kind in pair]
    means = rng.normal(size=(2, d)).astype(np.float32)
    sigmas = []
    for kind, cov in zip(pair, covs, strict=True):
        factor = np.asarray(getattr(cov, FACTOR[kind]))
        sigmas.append(oracle.covariance(kind, np.broadcast_to(factor, (d,) * max(factor.ndim, 1))))
    p, q = (gj.Gaussian(jnp.asarray(m), c) for m, c in zip(means, covs, strict=True))
    exact = oracle.kl(means[0], sigmas[0], means[1], sigmas[1])
    assert oracle.relative_error(gj.kl_divergence(p, q), exact) <= 2e-6


@pytest.mark.parametrize("pair", list(itertools.product(KINDS, KINDS)), ids="-".join)
@pytest.mark.parametrize("d", [3, 17])
def test_kl_between_forms_of_one_gaussian_vanishes_to_rounding(pair, d):
    """Σ = 2I written in two ways: the divergence is of the order of rounding, squared."""
    forms = {
        "isotropic": gj.Isotropic(jnp.float32(np.sqrt(2.0)), d),
        "diagonal": gj.Diagonal(jnp.full(d, np.sqrt(2.0), jnp.float32)),
        "cholesky": gj.Cholesky(jnp.eye(d) * jnp.float32(np.sqrt(2.0))),
        "precision": gj.PrecisionCholesky(jnp.eye(d) * jnp.float32(np.sqrt(0.5))),
    }
    value = gj.logdet_divergence(forms[pair[0]], forms[pair[1]])
    assert 0 <= value <= d * (8 * EPS[np.float32]) ** 2


def test_mixed_factors_of_close_gaussians_keep_the_digits_that_the_inputs_have():
    """A covariance factor against a precision factor: error ≲ κu/separation.

    The textbook formula has u/separation².
    """
    rng = np.random.default_rng(5)
    d, separation = 6, 1e-3
    mean_p, lower_p, mean_q, lower_q = nearby(rng, d, separation)
    inverse = np.linalg.inv(lower_q.astype(float) @ lower_q.T.astype(float))
    other = np.linalg.cholesky(inverse).astype(np.float32)
    p = gj.Gaussian(jnp.asarray(mean_p), gj.Cholesky(jnp.asarray(lower_p)))
    q = gj.Gaussian(jnp.asarray(mean_q), gj.PrecisionCholesky(jnp.asarray(other)))
    sigma_p, sigma_q = oracle.covariance("cholesky", lower_p), oracle.covariance("precision", other)
    for a, b, exact in (
        (p, q, oracle.kl(mean_p, sigma_p, mean_q, sigma_q)),
        (q, p, oracle.kl(mean_q, sigma_q, mean_p, sigma_p)),
    ):
        assert (
            oracle.relative_error(gj.kl_divergence(a, b), exact)
            <= 20 * EPS[np.float32] / separation
        )


@pytest.mark.parametrize("d", [2, 6, 16, 20])
def test_kl_is_never_negative(d):
    rng = np.random.default_rng(d)
    n = 2500
    lower = np.stack([random_lower(rng, d) for _ in range(n)])
    separation = 10.0 ** rng.uniform(-7, 0, (n, 1, 1))
    other = (lower * (1 + separation * np.tril(rng.uniform(-0.9, 0.9, (n, d, d))))).astype(
        np.float32
    )
    mean = np.zeros((n, d), np.float32)
    values = jax.jit(gj.kl_divergence)(*gaussians(mean, lower, mean, other))
    assert np.all(np.asarray(values) >= 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 4, 17])
def test_kl_to_itself_and_its_gradient_are_exactly_zero(kind, d):
    cov, _ = STRUCTURES[kind](np.random.default_rng(d), d, np.float32)
    g = gj.Gaussian(jnp.ones(d), cov)
    value, gradients = jax.value_and_grad(gj.kl_divergence, (0, 1))(g, g)
    assert value == 0
    for gradient in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_kl_agrees_with_distrax_where_that_is_accurate():
    distrax = pytest.importorskip("distrax", exc_type=ImportError)
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(x) for x in nearby(rng, 4, 0.5)]
    theirs = [distrax.MultivariateNormalTri(m, f) for m, f in (arrays[:2], arrays[2:])]
    expected = theirs[0].kl_divergence(theirs[1])
    assert abs(gj.kl_divergence(*gaussians(*arrays)) - expected) <= 1e-5 * expected


def _naive_kl(mean_p, lower_p, mean_q, lower_q):
    """The textbook formula, for autodiff in float64."""
    a, b = lower_p @ lower_p.T, lower_q @ lower_q.T
    difference = mean_p - mean_q
    quadratic = difference @ jnp.linalg.solve(b, difference)
    logdets = jnp.linalg.slogdet(b)[1] - jnp.linalg.slogdet(a)[1]
    return 0.5 * (jnp.trace(jnp.linalg.solve(b, a)) + quadratic - len(difference) + logdets)


def _our_kl(*arrays):
    return gj.kl_divergence(*gaussians(*arrays))


def _lower_parts(tree):
    return jax.tree.map(lambda x: np.tril(x) if x.ndim == 2 else x, tree)


@pytest.mark.parametrize("d", [1, 2, 5, 17])
def test_kl_gradient_agrees_with_autodiff_of_the_textbook_formula(d):
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in nearby(np.random.default_rng(d), d, 0.3, np.float64)]
        arguments = tuple(range(4))
        expected = _lower_parts(quick_jit(jax.grad(_naive_kl, arguments))(*arrays))
        for way in (jax.grad, jax.jacfwd):
            got = quick_jit(way(_our_kl, arguments))(*arrays)
            chex.assert_trees_all_close(got, expected, atol=1e-12)


def test_kl_gradient_of_triangles_taken_by_halves_agrees_too():
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in nearby(np.random.default_rng(0), 131, 0.3, np.float64)]
        arguments = tuple(range(4))
        expected = _lower_parts(jax.grad(_naive_kl, arguments)(*arrays))
        chex.assert_trees_all_close(jax.grad(_our_kl, arguments)(*arrays), expected, atol=1e-11)


@pytest.mark.parametrize("d", [2, 4, 17, 131])
def test_kl_hessian_agrees_with_autodiff_in_both_mixed_modes(d):
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in nearby(np.random.default_rng(d), d, 0.3, np.float64)]

        rng = np.random.default_rng(1)
        ways = [_lower_parts(rng.normal(size=x.shape)) for x in arrays]

        @quick_jit
        def hessians(arrays, ways):
            """Second derivatives along a random direction in all four arguments."""

            def along(kl):
                return lambda t: kl(*(x + t * way for x, way in zip(arrays, ways, strict=True)))

            mixes = itertools.product((jax.grad, jax.jacfwd), repeat=2)
            expected = jax.grad(jax.grad(along(_naive_kl)))(0.0)
            return expected, [first(second(along(_our_kl)))(0.0) for first, second in mixes]

        expected, found = hessians(arrays, ways)
        for got in found:
            assert abs(got - expected) <= 1e-10 * abs(expected)


def test_kl_gradient_is_exact_close_to_the_other_gaussian():
    """In float32 and 1e-5 apart, against the same formula in float64 at the same inputs."""
    arrays = nearby(np.random.default_rng(0), 6, 1e-5)
    single = jax.grad(_our_kl, (0, 1, 2, 3))(*(jnp.asarray(x) for x in arrays))
    with jax.enable_x64(True):
        double = jax.grad(_our_kl, (0, 1, 2, 3))(*(jnp.asarray(x, jnp.float64) for x in arrays))
        for got, expected in zip(single, double, strict=True):
            scale = np.max(np.abs(expected))
            assert np.max(np.abs(np.asarray(got, float) - np.asarray(expected))) <= 2e-6 * scale


def test_kl_hessian_at_equality_is_the_fisher_metric():
    """∂²KL(p‖q)/∂q² at q = p is the Fisher information of (μ, L): E[∇log q ∇log qᵀ]."""
    with jax.enable_x64(True):
        mean, lower, _, _ = nearby(np.random.default_rng(3), 3, 0.1, np.float64)
        rows, columns = np.tril_indices(3)

        def unpack(theta):
            return gj.Gaussian(
                theta[:3], gj.Cholesky(jnp.zeros((3, 3)).at[rows, columns].set(theta[3:]))
            )

        theta = jnp.asarray(np.concatenate([mean, lower[rows, columns]]))
        hessian = jax.hessian(lambda t: gj.kl_divergence(unpack(theta), unpack(t)))(theta)
        # Fisher of a Gaussian: ∂μᵀΛ∂μ + ½ tr(Λ ∂Σ Λ ∂Σ)
        jacobian = jax.jacfwd(lambda t: gj.covariance(unpack(t)))(theta)
        precision = gj.precision(unpack(theta))
        scaled = jnp.einsum("ab,bck->ack", precision, jacobian)
        fisher = 0.5 * jnp.einsum("abk,bal->kl", scaled, scaled)
        fisher = fisher.at[:3, :3].add(precision)
        np.testing.assert_allclose(hessian, fisher, atol=1e-12)


def test_cross_entropy_is_the_mean_negative_log_density():
    p, q = gaussians(*nearby(np.random.default_rng(1), 3, 0.5))
    x = gj.sample(jax.random.key(0), p, (200_000,))
    losses = -gj.log_prob(q, x)
    error = jnp.std(losses) / jnp.sqrt(jnp.float32(losses.size))
    assert abs(gj.cross_entropy(p, q) - jnp.mean(losses)) < 5 * error


def test_kl_broadcasts_batches_like_numpy():
    rng = np.random.default_rng(0)
    lower = np.stack([random_lower(rng, 2) for _ in range(3)])
    p = gj.Gaussian(
        jnp.asarray(rng.normal(size=(4, 1, 2)), jnp.float32), gj.Cholesky(jnp.asarray(lower))
    )
    q = gj.standard(2)
    values = gj.kl_divergence(p, q)
    chex.assert_shape(values, (4, 3))
    one = gj.kl_divergence(gj.Gaussian(p.mean[2, 0], gj.Cholesky(jnp.asarray(lower[1]))), q)
    assert abs(values[2, 1] - one) <= 1e-6 * one


def test_kl_of_factors_with_a_negative_diagonal_is_nan():
    p = gj.Gaussian(jnp.zeros(2), gj.Cholesky(jnp.diag(jnp.array([1.0, -1.0]))))
    assert jnp.isnan(gj.kl_divergence(p, p))


@pytest.mark.parametrize("kind", sorted(set(STRUCTURES) - {"toeplitz", "circulant"}))
def test_the_gradient_of_a_cross_entropy_is_exact_for_a_narrow_gaussian(kind):
    """H(p) + KL(p‖q) is the same; but 1/scale cancels in its gradient, which was zero."""
    q = gj.Gaussian(jnp.zeros(6), STRUCTURES[kind](np.random.default_rng(0), 6, np.float32)[0])
    factor = jnp.float32(1e-4)

    def of_scale(scale, q):
        return gj.cross_entropy(gj.scale_by(q, scale), q)  # ½ d scale² + log|2πΣ|/2

    np.testing.assert_allclose(jax.grad(of_scale)(factor, q), 6 * factor, rtol=2e-6)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_cross_entropy_may_be_of_a_singular_gaussian(kind):
    rng = np.random.default_rng(0)
    q = gj.Gaussian(jnp.ones(2), STRUCTURES[kind](rng, 2, np.float32)[0])
    sigma = np.asarray(gj.covariance(q), float)
    zero = np.float32([0.0, 1.0]), np.float32([[0.0, 0.0], [0.6, 0.8]])
    spread = np.diag([0.0, 1.0])
    for cov in (
        gj.Diagonal(jnp.asarray(zero[0])),
        gj.Cholesky(jnp.asarray(zero[1])),
        gj.LowRank(jnp.zeros(2), jnp.asarray(zero[1])),
        gj.Scaled(gj.Isotropic(jnp.ones(()), 2), jnp.asarray(zero[0])),
    ):
        p = gj.Gaussian(jnp.zeros(2), cov)
        value, gradients = quick_jit(jax.value_and_grad(gj.cross_entropy, (0, 1)))(p, q)
        trace = np.trace(np.linalg.solve(sigma, spread + np.ones((2, 2))))  # means are 1 apart
        expected = 0.5 * (np.linalg.slogdet(2 * np.pi * sigma)[1] + trace)
        np.testing.assert_allclose(value, expected, rtol=5e-6)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_a_cross_entropy_may_be_of_a_singular_gaussian_of_the_same_structure():
    flat, one = gj.Diagonal(jnp.array([0.0, 1.0])), gj.Diagonal(jnp.ones(2))
    flats, ones = gj.Diagonal(jnp.eye(2)), gj.Diagonal(jnp.ones((2, 2)))
    for p, q in (
        (flat, one),
        (gj.Kronecker((flat, one)), gj.Kronecker((one, one))),
        (gj.BlockDiagonal((flat,)), gj.BlockDiagonal((one,))),
        (
            gj.StackedBlocks(flats),
            gj.StackedBlocks(ones),
        ),
        (gj.Circulant(jnp.array([2.0, 0.0])), gj.Circulant(jnp.ones(2))),
        (gj.Toeplitz(jnp.array([1.0, 1.0])), gj.Toeplitz(jnp.array([1.0, 0.0]))),
    ):
        trace = float(np.trace(p.dense()))
        value = gj.cross_entropy(*(gj.Gaussian(jnp.zeros(c.dim), c) for c in (p, q)))
        np.testing.assert_allclose(value, 0.5 * (p.dim * np.log(2 * np.pi) + trace), rtol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 5, 12, 17, 131])
def test_cross_entropy_derivatives_agree_with_autodiff_of_the_textbook_formula(d):
    def naive(mean_p, lower_p, mean_q, lower_q):
        a, b, v = lower_p @ lower_p.T, lower_q @ lower_q.T, mean_p - mean_q
        inside = jnp.trace(jnp.linalg.solve(b, a)) + v @ jnp.linalg.solve(b, v)
        return 0.5 * (inside + jnp.linalg.slogdet(2 * jnp.pi * b)[1])

    def ours(*arrays):
        return gj.cross_entropy(*gaussians(*arrays))

    with jax.enable_x64(True):
        rng = np.random.default_rng(d)
        arrays = [jnp.asarray(x) for x in nearby(rng, d, 0.3, np.float64)]
        ways = [_lower_parts(rng.normal(size=x.shape)) for x in arrays]

        def derivatives(f, arrays):
            def along(t):
                return f(*(x + t * way for x, way in zip(arrays, ways, strict=True)))

            return jax.value_and_grad(f, (0, 1, 2, 3))(*arrays), jax.jacfwd(jax.grad(along))(0.0)

        expected, got = (
            quick_jit(functools.partial(derivatives, f))(arrays) for f in (naive, ours)
        )
        chex.assert_trees_all_close(got, _lower_parts(expected), rtol=1e-9, atol=1e-10)
