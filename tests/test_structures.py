"""What single structures promise beyond the conformance suite."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from catalogue import STRUCTURES, random_lower
from compiling import quick_jit
from scipy.linalg import toeplitz

import gaussjax as gj

KEY = jax.random.key(0)


def low_rank(rng, d, r, noise):
    scale = np.full(d, noise, np.float32)
    return gj.LowRank(jnp.asarray(scale), jnp.asarray(rng.normal(size=(d, r)), np.float32))


def exact_quadratic(cov, v):
    """vᵀΣ⁻¹v in 60 digits."""
    with mpmath.workdps(60):
        scale, factor = (
            mpmath.matrix(np.asarray(x, float).tolist()) for x in (cov.scale, cov.factor)
        )
        sigma = mpmath.diag([s**2 for s in scale]) + factor * factor.T
        vector = mpmath.matrix(np.asarray(v, float).tolist())
        return float((vector.T * mpmath.lu_solve(sigma, vector))[0])


@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-3])
def test_low_rank_quadratic_keeps_its_digits_at_small_noise(noise):
    """Both textbook forms lose all of them at a noise variance of 1e-6."""
    rng = np.random.default_rng(0)
    cov = low_rank(rng, 12, 3, noise)
    g = gj.Gaussian(jnp.zeros(12), cov)
    inside = np.asarray(cov.factor) @ rng.normal(size=3) + noise * rng.normal(size=12)
    x = jnp.asarray(inside, np.float32)
    np.testing.assert_allclose(
        gj.mahalanobis(g, x), exact_quadratic(cov, x), rtol=2e-5 / noise**0.5
    )


def test_zero_scales_are_exact_where_the_factor_makes_up_for_them():
    rng = np.random.default_rng(1)
    scale, factor = rng.uniform(0.5, 2.0, 6), rng.normal(size=(6, 2))
    scale[[1, 4]] = 0
    sigma = np.diag(scale**2) + factor @ factor.T
    cov = gj.LowRank(jnp.asarray(scale, np.float32), jnp.asarray(factor, np.float32))
    g, q = gj.Gaussian(jnp.zeros(6), cov), gj.standard(6)

    def program(g, x):
        both = gj.kl_divergence(g, q), gj.kl_divergence(q, g)
        gradient = jax.grad(lambda g: gj.log_prob(g, x) + gj.kl_divergence(q, g))(g)
        return gj.log_prob(g, x), gj.entropy(g), gj.precision(g), both, gradient

    value, entropy, precision, kls, gradient = jax.jit(program)(g, jnp.ones(6))
    one, logdet = np.ones(6), np.linalg.slogdet(sigma)[1]
    constant = 6 * np.log(2 * np.pi)
    quadratic = one @ np.linalg.solve(sigma, one)
    np.testing.assert_allclose(value, -0.5 * (quadratic + logdet + constant), rtol=1e-5)
    np.testing.assert_allclose(entropy, 0.5 * (logdet + constant + 6), rtol=1e-5)
    np.testing.assert_allclose(precision, np.linalg.inv(sigma), rtol=1e-3, atol=1e-3)
    trace = np.trace(sigma), np.trace(np.linalg.inv(sigma))
    np.testing.assert_allclose(kls[0], 0.5 * (trace[0] - 6 - logdet), rtol=1e-4)
    np.testing.assert_allclose(kls[1], 0.5 * (trace[1] - 6 + logdet), rtol=1e-4)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(gradient.cov.scale[np.array([1, 4])], 0)  # Σ has scale² in it


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4])
def test_low_rank_divergences_keep_their_digits_where_few_coordinates_carry_a_loading(noise):
    """Its leverage is one to rounding, and 1 − h and the near form cancelled: KLs were negative."""
    loaded = gj.LowRank(jnp.full(3, noise), jnp.array([[0.0], [0.0], [1.0]]))
    same = gj.Diagonal(jnp.array([noise, noise, 1.0]))
    narrow = gj.Diagonal(jnp.array([noise / 100, noise / 100, 1.0]))
    bare = gj.LowRank(jnp.full(3, noise), jnp.zeros((3, 1)))
    s = float(np.float32(noise))
    top = 1 + s**2
    expected = [  # A, B, KL, tr(B⁻¹A)
        (same, loaded, 0.5 * (1 / top - 1 + np.log(top)), 2 + 1 / top),
        (loaded, same, 0.5 * (s**2 - np.log(top)), 2 + top),
        (narrow, loaded, 0.5 * (2e-4 + 1 / top - 3 + np.log(1e8 * top)), 2e-4 + 1 / top),
        (bare, loaded, 0.5 * (s**2 / top - 1 + np.log(top / s**2)), 2 + s**2 / top),
    ]
    for a, b, kl, trace in expected:
        p, q = (gj.Gaussian(jnp.zeros(3), c) for c in (a, b))
        np.testing.assert_allclose(gj.kl_divergence(p, q), kl, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gj.trace_solve(a, b), trace, rtol=1e-6)


def test_a_trace_over_a_batch_against_low_rank_takes_no_more_products_than_one():
    def flops(*batch):
        a = gj.Circulant(jnp.ones((*batch, 512)))
        b = gj.LowRank(jnp.ones((*batch, 512)), jnp.ones((*batch, 512, 2)))
        return jax.jit(gj.trace_solve).lower(a, b).compile().cost_analysis()["flops"]

    assert flops(3) < 4 * flops()


def test_more_zero_scales_than_columns_is_singular_and_a_negative_one_is_nan():
    for scale in ([0.0, 0.0, 1.0], [-1.0, 1.0, 1.0]):
        cov = gj.LowRank(jnp.array(scale), jnp.ones((3, 1)))
        assert not np.isfinite(gj.entropy(gj.Gaussian(jnp.zeros(3), cov)))


def test_low_rank_of_a_million_dimensions_is_an_everyday_thing():
    d = 1_000_000
    g = gj.Gaussian(jnp.zeros(d), gj.LowRank(jnp.full(d, 2.0), jnp.full((d, 1), 1e-3)))
    # WᵀD⁻¹W = d·1e-6/4, so log|Σ| = d log 4 + log(1 + 1/4)
    constant = d * np.log(8 * np.pi * np.e) + np.log(1.25)
    np.testing.assert_allclose(gj.entropy(g), 0.5 * constant, rtol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 3, 40])
def test_a_toeplitz_sample_is_the_corner_of_a_circulant_one(d):
    column = 0.8 ** np.arange(d)
    cov = gj.Toeplitz(jnp.asarray(column, np.float32))
    root = jax.jit(lambda c: jax.vmap(c.draw)(jnp.eye(c.noise_dim)))(cov)
    np.testing.assert_allclose(root.T @ root, toeplitz(column), atol=2e-6)


def test_a_toeplitz_without_a_positive_embedding_samples_by_its_factor():
    column = np.array([1.0, 0.9, 0.63], np.float32)  # its circulant embedding is indefinite
    assert np.linalg.eigvalsh(toeplitz(column)).min() > 0
    assert np.fft.fft([*column, column[1]]).real.min() < 0
    cov = gj.Toeplitz(jnp.asarray(column))
    root = jax.vmap(cov.draw)(jnp.eye(cov.noise_dim))
    np.testing.assert_allclose(root.T @ root, toeplitz(column), atol=2e-6)


def test_a_batch_of_toeplitz_samples_by_fft_unless_one_of_it_cannot():
    def draw(key, column):
        return gj.sample(key, gj.Gaussian(jnp.zeros(8), gj.Toeplitz(column)))

    smooth = 0.5 ** jnp.arange(8.0)
    rough = jnp.cos(jnp.arange(8.0) * 0.3).at[0].add(0.01)  # no positive embedding
    keys, columns = jax.random.split(KEY), jnp.stack([smooth, rough])
    together = jax.jit(jax.vmap(draw))(keys, columns)
    for i in range(2):
        np.testing.assert_allclose(together[i], draw(keys[i], columns[i]), rtol=1e-5, atol=1e-6)
    program = jax.make_jaxpr(jax.vmap(draw))(keys, columns)
    assert "cond[" in str(program)  # and not a choice between both, already computed


def test_a_smooth_kernel_samples_by_fft_though_its_spectrum_is_negative_by_rounding():
    column = jnp.exp(-0.5 * jnp.square(jnp.arange(512.0) / 20))
    assert np.min(np.fft.rfft(np.concatenate([column, column[-2:0:-1]]).astype(np.float32))) < 0
    draws = gj.sample(KEY, gj.Gaussian(jnp.zeros(512), gj.Toeplitz(column)), (2000,))
    np.testing.assert_allclose(jnp.mean(draws[:, 7] * draws[:, 27]), column[20], atol=0.1)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_scalings_and_sums_of_any_structure_agree_with_their_matrices(kind):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        (cov, dense), factor = STRUCTURES[kind](rng, 4, np.float64), rng.uniform(0.5, 2.0, 4)
        other, matrix = STRUCTURES["kronecker"](rng, 4, np.float64)
        scaled = gj.Scaled(cov, jnp.asarray(factor)), factor[:, None] * dense * factor
        total = gj.Sum(cov, other), dense + matrix
        for (a, x), (b, y) in (
            (scaled, (other, matrix)),
            ((other, matrix), scaled),
            (total, scaled),
        ):
            p, q = (gj.Gaussian(jnp.zeros(4), c) for c in (a, b))
            trace = np.trace(np.linalg.solve(y, x))
            kl = 0.5 * (trace - 4 - np.linalg.slogdet(x)[1] + np.linalg.slogdet(y)[1])
            *got, both = quick_jit(
                lambda p, q: (
                    gj.trace_solve(p.cov, q.cov),
                    gj.kl_divergence(p, q),
                    gj.add(p.cov, q.cov).dense(),
                )
            )(p, q)
            np.testing.assert_allclose(got, (trace, kl), rtol=1e-9)
            np.testing.assert_allclose(both, x + y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrap", ["kronecker", "blocks", "stacked", "scaled"])
def test_what_holds_a_toeplitz_maps_like_its_matrix(wrap):
    """Their color was not linear to JAX: where it is not positive definite was asked of x."""
    inner = gj.Toeplitz(jnp.array([2.0, 1.0]))
    cov = {
        "kronecker": gj.Kronecker((inner, inner)),
        "blocks": gj.BlockDiagonal((inner, inner)),
        "stacked": gj.StackedBlocks(gj.Toeplitz(jnp.array([[2.0, 1.0], [3.0, 1.0]]))),
        "scaled": gj.Scaled(gj.Toeplitz(jnp.array([2.0, 1.0, 0.5, 0.0])), jnp.arange(1.0, 5.0)),
    }[wrap]
    g, sigma = gj.Gaussian(jnp.zeros(4), cov), np.asarray(cov.dense())
    matrix = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, -1.0]], np.float32)
    expected = matrix @ sigma @ matrix.T
    np.testing.assert_allclose(gj.covariance(gj.affine(g, matrix)), expected, rtol=1e-5)
    part = gj.covariance(gj.marginal(g, [3, 0]))
    np.testing.assert_allclose(part, sigma[np.ix_([3, 0], [3, 0])], rtol=1e-5, atol=1e-6)


def test_toeplitz_derivatives_are_those_of_the_dense_form():
    column, x = jnp.asarray(2 * 0.7 ** np.arange(8.0)), jnp.linspace(-1.0, 1.0, 8)

    def dense(column):
        positions = np.arange(8)
        matrix = column[np.abs(positions[:, None] - positions[None])]
        return gj.log_prob(gj.Gaussian(jnp.zeros(8), gj.Cholesky(gj.linalg.cholesky(matrix))), x)

    def structured(column):
        return gj.log_prob(gj.Gaussian(jnp.zeros(8), gj.Toeplitz(column)), x)

    for order in (jax.grad, jax.jacfwd, jax.hessian):
        got, expected = jax.jit(order(structured))(column), jax.jit(order(dense))(column)
        size = float(jnp.max(jnp.abs(expected)))
        np.testing.assert_allclose(got, expected, atol=1e-4 * size)


@pytest.mark.parametrize("d", [1, 2, 70, 1000])
@pytest.mark.parametrize("b", [0, 1, 3])
def test_a_chain_agrees_with_its_matrix_at_any_length(d, b):
    rng = np.random.default_rng(0)
    band = (0.3 * rng.normal(size=(b + 1, d))).astype(np.float32)
    band[0] = rng.uniform(0.8, 1.5, d)
    lower = np.zeros((d, d))
    for k, row in enumerate(band[:d]):
        lower += np.diag(row[: d - k].astype(float), -k)
    sigma = np.linalg.inv(lower @ lower.T)
    cov = gj.BandedPrecision(jnp.asarray(band))
    noise = rng.normal(size=d).astype(np.float32)
    colored, variance, back = jax.jit(
        lambda c, e: (c.color(e), c.variance(), c.whiten(c.color(e)))
    )(cov, jnp.asarray(noise))
    np.testing.assert_allclose(colored, np.linalg.solve(lower.T, noise), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(variance, np.diag(sigma), rtol=1e-4)
    np.testing.assert_allclose(back, noise, rtol=1e-3, atol=1e-4)


def test_a_long_chain_compiles_to_a_program_as_short_as_a_shorter_one():
    def lines(d):
        g = gj.Gaussian(jnp.zeros(d), gj.BandedPrecision(jnp.ones((3, d))))
        text = jax.jit(lambda g: (gj.sample(KEY, g), gj.variance(g))).lower(g).as_text()
        return len(text.splitlines())

    assert lines(100_000) == lines(1_000)


def test_the_band_of_a_precision_is_factorised_as_its_matrix():
    diagonals = [[2.0, 3.0, 4.0, 5.0], [0.5, -0.5, 1.0, 9.0]]  # the last entry is past the end
    g = gj.from_banded_precision(jnp.zeros(4), diagonals)
    expected = np.diag([2.0, 3.0, 4.0, 5.0])
    expected += np.diag([0.5, -0.5, 1.0], 1) + np.diag([0.5, -0.5, 1.0], -1)
    np.testing.assert_allclose(gj.precision(g), expected, atol=1e-5)


def test_a_kronecker_product_is_a_matrix_normal():
    rng = np.random.default_rng(0)
    rows, columns = (
        gj.linalg.lower_product(x, x) for x in np.eye(3)[None] + rng.normal(size=(2, 3, 3)) / 9
    )
    g = gj.from_kronecker(np.zeros(9), [gj.Cholesky(jnp.asarray(x)) for x in (rows, columns)])
    x = rng.normal(size=(3, 3)).astype(np.float32)
    whitened = np.linalg.solve(rows, x) @ np.linalg.inv(columns).T
    np.testing.assert_allclose(gj.whiten(g, x.ravel()), whitened.ravel(), rtol=1e-4, atol=1e-5)


STORING_SCALES = sorted(set(STRUCTURES) - {"circulant", "toeplitz"})  # those store variances


@pytest.mark.parametrize("kind", STORING_SCALES)
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_deviations_are_right_where_their_squares_leave_the_range(kind, size):
    cov, sigma = STRUCTURES[kind](np.random.default_rng(0), 4, np.float32)
    g = gj.scale_by(gj.Gaussian(jnp.zeros(4), cov), jnp.float32(size))

    @quick_jit
    def of(g):
        colored = gj.color_symmetric(g, jnp.eye(4, dtype=np.float32))
        return gj.stddev(g), colored, gj.stddev(gj.scale_by(g, jnp.arange(1.0, 5.0)))

    stddev, colored, scaled = of(g)
    expected = np.sqrt(np.diag(sigma))
    np.testing.assert_allclose(np.asarray(stddev, float) / size, expected, rtol=1e-6)
    root = np.asarray(colored, float) / size
    np.testing.assert_allclose(root @ root, sigma, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        np.asarray(scaled, float) / size, expected * np.arange(1, 5), rtol=1e-6
    )


@pytest.mark.parametrize("size", [1e-25, 1e-19, 1e-15, 1e19, 1e20, 1e25])
def test_gradients_in_the_scales_of_a_diagonal_are_right_there_too(size):
    """They were −inf or NaN, as the derivative of a division squares the divisor."""
    t, u, x = jnp.array([2.0, 0.5]), jnp.array([1.0, 3.0]), jnp.array([-1.0, 3.0])
    s = np.float32(size)

    def of(function):
        return lambda t, u: function(*(gj.Gaussian(jnp.zeros(2), gj.Diagonal(v)) for v in (t, u)))

    for function, expected in (
        (gj.kl_divergence, (t / u**2 - 1 / t, 1 / u - t**2 / u**3)),
        (gj.cross_entropy, (t / u**2, 1 / u - t**2 / u**3)),
        (lambda p, q: gj.log_prob(p, s * x), (x**2 / t**3 - 1 / t, 0 * u)),
    ):
        got = quick_jit(jax.grad(of(function), (0, 1)))(s * t, s * u)
        for gradient, right in zip(got, expected, strict=True):
            np.testing.assert_allclose(np.asarray(gradient, float) * size, right, rtol=2e-6)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_gradients_of_divergences_of_isotropic_ones_are_right_there_too(size):
    def kl(t, u):
        p, q = (gj.Gaussian(jnp.zeros(4), gj.Isotropic(s * np.float32(size), 4)) for s in (t, u))
        return gj.kl_divergence(p, q)

    got = quick_jit(jax.grad(kl, (0, 1)))(jnp.float32(2.0), jnp.ones(()))
    np.testing.assert_allclose(got, (4 * (2 - 0.5), 4 * (1 - 4)), rtol=2e-6)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_a_scaled_covariance_and_a_sum_have_their_deviations_there_too(size):
    one = gj.Scaled(gj.Toeplitz(jnp.array([1.0, 0.5])), jnp.float32([size, 2 * size]))
    two = gj.Sum(one, gj.Isotropic(jnp.float32(size), 2))
    sigma = np.array([[1.0, 1.0], [1.0, 4.0]])
    for cov, dense in (one, sigma), (two, sigma + np.eye(2)):
        root = np.asarray(jax.vmap(cov.color_symmetric)(jnp.eye(2)), float) / size
        np.testing.assert_allclose(root @ root, dense, rtol=2e-6)
        np.testing.assert_allclose(
            np.asarray(cov.stddev(), float) / size, np.sqrt(np.diag(dense)), rtol=1e-6
        )


def multi_output(noise, dtype=np.float32):
    """Three outputs at five points, correlated along both, and noise."""
    rng = np.random.default_rng(0)
    b, k = (jnp.asarray(random_lower(rng, n, dtype)) for n in (3, 5))
    return gj.add(gj.Kronecker((gj.Cholesky(b), gj.Cholesky(k))), noise)


def noises(dtype=np.float32):
    rng = np.random.default_rng(1)
    scales = [jnp.asarray(rng.uniform(0.5, 2.0, n), dtype) for n in (3, 5)]
    zero = [scales[0].at[1].set(0.0), scales[1]]
    products = [gj.Kronecker(tuple(map(gj.Diagonal, s))) for s in (scales, zero)]
    return [gj.Isotropic(jnp.asarray(0.3, dtype), 15), *products]


@pytest.mark.parametrize("i", range(3))
def test_a_kronecker_product_plus_a_diagonal_has_the_density_of_the_dense_sum(i):
    with jax.enable_x64(True):
        cov, x = multi_output(noises(np.float64)[i], np.float64), jnp.linspace(-1.0, 2.0, 15)
        assert isinstance(cov, gj.KroneckerPlusDiagonal)

        def closed(cov, x):
            return gj.log_prob(gj.Gaussian(jnp.zeros(15), cov), x)

        def dense(cov, x):
            lower = jnp.linalg.cholesky(cov.dense())
            w = jax.scipy.linalg.solve_triangular(lower, x, lower=True)
            logdet = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
            return -0.5 * (w @ w + logdet + 15 * jnp.log(2 * jnp.pi))

        def of(function):
            def program(cov, x):
                direction = jax.tree.map(jnp.cos, (cov, x))
                along = lambda args: jax.jvp(function, args, direction)[1]  # noqa: E731
                both = jax.value_and_grad(function, (0, 1))(cov, x)
                return both, jax.grad(along)((cov, x)), gj.solve(cov, x)

            return quick_jit(program)(cov, x)

        (got, second, solved), (expected, other, _) = of(closed), of(dense)
        sigma = np.asarray(cov.dense())
    np.testing.assert_allclose(solved, np.linalg.solve(sigma, x), rtol=1e-9, atol=1e-10)
    for a, b in zip(*map(jax.tree.leaves, ((got, second), (expected, other))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_derivatives_of_a_kronecker_product_plus_noise_are_finite_where_eigenvalues_repeat():
    one = gj.Cholesky(jnp.eye(3))
    cov = gj.add(gj.Kronecker((one, one)), gj.Isotropic(jnp.ones(()), 9))
    g = gj.Gaussian(jnp.zeros(9), cov)
    gradient = jax.grad(gj.log_prob)(g, jnp.zeros(9))
    # log|Σ| = Σ log(1 + λλ'), of which each λ = l² has three
    for factor in gradient.cov.first.factors:
        np.testing.assert_allclose(factor.lower, -0.5 * 3 * np.eye(3), atol=1e-6)
    np.testing.assert_allclose(gradient.cov.second.scale, -0.5 * 9, rtol=1e-6)


def test_a_kronecker_product_plus_noise_maps_over_batches_and_leaves_neighbours_of_a_nan_alone():
    cov, x = multi_output(noises()[0]), jnp.linspace(-1.0, 2.0, 15)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * jnp.nan, 2 * leaf]), cov)

    def log_prob(cov, x):
        return gj.log_prob(gj.Gaussian(jnp.zeros(15), cov), x)

    both = jax.value_and_grad(log_prob)
    values, gradients = quick_jit(jax.vmap(both, (0, None)))(many, x)
    nested = quick_jit(jax.vmap(jax.vmap(log_prob, (None, 0)), (0, None)))(many, jnp.stack([x, x]))
    np.testing.assert_allclose(nested[::2, 1], values[::2], rtol=1e-6)
    assert jnp.isnan(values[1])
    for i, factor in ((0, 1.0), (2, 2.0)):
        one = jax.tree.map(lambda leaf, factor=factor: factor * leaf, cov)
        value, gradient = quick_jit(both)(one, x)
        np.testing.assert_allclose(values[i], value, rtol=1e-6)
        for a, b in zip(*map(jax.tree.leaves, (gradients, gradient)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)


def a_sum(noise):
    """A sum without a closed form: a smooth process on a grid of outputs, and unequal noise."""
    points = jnp.linspace(0.0, 1.0, 6)
    smooth = jnp.exp(-0.5 * jnp.square((points[:, None] - points[None]) / 0.5)) + 1e-5 * jnp.eye(6)
    k = gj.Cholesky(gj.linalg.cholesky(smooth))
    signal = gj.Kronecker((gj.Cholesky(jnp.array([[1.0, 0.0], [0.5, 1.0]])), k))
    return gj.add(signal, gj.Diagonal(noise * jnp.linspace(1.0, 2.0, 12)))


@pytest.mark.parametrize("noise", [1.0, 1e-1, 1e-2, 1e-3])
def test_the_density_of_a_sum_keeps_the_digits_that_its_factors_have(noise):
    """A Cholesky factorisation of the matrix has an error of κ, the root by QR one of √κ."""
    cov, x = a_sum(noise), jnp.sin(jnp.arange(12.0))
    assert type(cov) is gj.Sum

    def log_prob(cov, x):
        return gj.log_prob(gj.Gaussian(jnp.zeros(12), cov), x)

    value, gradient = jax.jit(jax.value_and_grad(log_prob))(cov, x)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), np.float64), cov)
        sigma, v = np.asarray(exact.dense()), np.asarray(x, float)
        expected = jax.grad(log_prob)(exact, jnp.asarray(v))
    right = -0.5 * (v @ np.linalg.solve(sigma, v) + np.linalg.slogdet(2 * np.pi * sigma)[1])
    np.testing.assert_allclose(value, right, rtol=2e-6 * np.sqrt(np.linalg.cond(sigma)))
    for got, want in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        size = np.max(np.abs(want))
        np.testing.assert_allclose(got, want, atol=2e-5 * np.sqrt(np.linalg.cond(sigma)) * size)


def test_a_batch_of_sums_takes_each_its_own_way_and_leaves_neighbours_of_a_nan_alone():
    noises = jnp.array([1.0, 1e-3, jnp.nan, 1e-1])

    def log_prob(noise):
        return gj.log_prob(gj.Gaussian(jnp.zeros(12), a_sum(noise)), jnp.sin(jnp.arange(12.0)))

    values, gradients = quick_jit(jax.vmap(jax.value_and_grad(log_prob)))(noises)
    alone = quick_jit(jax.value_and_grad(log_prob))
    assert jnp.isnan(values[2])
    for i in (0, 1, 3):
        value, gradient = alone(noises[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-4)
        np.testing.assert_allclose(gradients[i], gradient, rtol=2e-3)


SMOOTH = np.exp(-0.5 * np.square(np.arange(12) / 10)).astype(np.float32)  # by rounding indefinite


def noisy(parts, column, noise):
    """A smooth process on an even grid, alone and inside other structures, with unequal noise."""
    smooth, scale = gj.Toeplitz(column), jnp.linspace(1.0, 2.0, 12)
    cov = {
        "alone": lambda: smooth,
        "scaled": lambda: gj.Scaled(smooth, scale),
        "blocks": lambda: gj.BlockDiagonal((gj.Toeplitz(column[:8]), gj.Diagonal(scale[:4]))),
        "stacked": lambda: gj.StackedBlocks(gj.Toeplitz(jnp.stack([column[:6], 2 * column[:6]]))),
        "kronecker": lambda: gj.Kronecker((gj.Diagonal(scale[:2]), gj.Toeplitz(column[:6]))),
        "in a sum": lambda: gj.Sum(gj.Diagonal(noise * scale), smooth),
        "beside columns": lambda: gj.Sum(smooth, gj.Root(jnp.stack([scale, scale**2], 1))),
    }[parts]()
    return gj.Sum(cov, gj.Diagonal(noise * scale[::-1]))


def test_the_matrix_of_a_scaled_covariance_stays_in_the_range_of_its_entries():
    for scale, factor in ((1e15, 1e-22), (1e-29, 1e22)):  # of variances 1e30, and 1e-58
        base = gj.Kronecker((gj.Diagonal(jnp.full(2, scale)), gj.Diagonal(jnp.ones(2))))
        matrix = gj.Scaled(base, jnp.full(4, factor)).dense()
        np.testing.assert_allclose(matrix, 1e-14 * np.eye(4), rtol=1e-5)
    column = np.array([1.0, 0.5, 0.25, 0.125])
    matrix = gj.Scaled(gj.Toeplitz(jnp.asarray(1e30 * column)), jnp.full(4, 1e-22)).dense()
    np.testing.assert_allclose(matrix, 1e-14 * toeplitz(column), rtol=1e-5)


NOISY = ("alone", "scaled", "blocks", "stacked", "kronecker", "in a sum", "beside columns")


@pytest.mark.parametrize("parts", NOISY)
def test_a_smooth_process_with_unequal_noise_has_its_density_and_gradients(parts):
    assert np.linalg.eigvalsh(toeplitz(SMOOTH)).min() < 0

    def log_prob(column, noise, x):
        return gj.log_prob(gj.Gaussian(jnp.zeros(12), noisy(parts, column, noise)), x)

    both = jax.value_and_grad(log_prob, (0, 1, 2))
    x, noises = np.sin(np.arange(12)), np.array([1.0, 0.1, 0.03])
    args = [np.asarray(a, np.float32) for a in (SMOOTH, noises, x)]
    cov = noisy(parts, *map(jnp.asarray, (SMOOTH, args[1][1])))
    assert np.all(np.isfinite(cov.dense()))
    assert np.array_equal(cov.dense(), cov.dense().T)
    found = quick_jit(jax.vmap(both, (None, 0, None)))(*args)
    with jax.enable_x64(True):
        wide = quick_jit(jax.vmap(jax.value_and_grad(by_hand, (0, 1, 2)), (None, 0, None, None)))
        parts_of = jax.tree_util.Partial(lambda column, noise: noisy(parts, column, noise).dense())
        right = wide(*(jnp.asarray(a, jnp.float64) for a in args), parts_of)
        many = np.asarray(jax.vmap(parts_of, (None, 0))(*map(jnp.float64, args[:2])))
    bar = 8 * 12 * np.finfo(np.float32).eps / 2 * scaled_condition(many)
    for got, expected in zip(*map(jax.tree.leaves, (found, right)), strict=True):
        got, expected = (np.asarray(x, float).reshape(3, -1) for x in (got, expected))
        size = np.abs(expected).max(axis=1)
        assert np.all(np.abs(got - expected).max(axis=1) <= bar * size)


def by_hand(column, noise, x, matrix):
    sigma = matrix(column, noise)
    distance = x @ jnp.linalg.solve(sigma, x)
    return -0.5 * (distance + jnp.linalg.slogdet(2 * np.pi * sigma)[1])


def scaled_condition(matrices):
    sizes = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    return np.linalg.cond(matrices / sizes[:, :, None] / sizes[:, None])
