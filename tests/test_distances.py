"""Jensen-Shannon, Fisher-Rao, kernel and barycentre, against quadrature and dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from catalogue import STRUCTURES, random_lower
from compiling import quick_jit
from test_divergences import gaussians, nearby

import gaussjax as gj

PAIRWISE = {
    "renyi": lambda p, q: gj.renyi_divergence(p, q, order=1.1),
    "hellinger": gj.hellinger_distance,
    "jensen_shannon": gj.jensen_shannon_divergence,
    "wasserstein2": gj.wasserstein2,
    "frechet": gj.frechet_distance,
    "fisher_rao": lambda p, q: gj.fisher_rao_distance(p, gj.Gaussian(p.mean, q.cov)),
    "bounds": lambda p, q: sum(gj.fisher_rao_bounds(p, q)),
    "mean_discrepancy": lambda p, q: gj.maximum_mean_discrepancy(p, q, bandwidth=2.0),
}


@pytest.mark.parametrize("name", PAIRWISE)
def test_gradients_of_a_batch_are_those_of_each(name):
    each = [nearby(np.random.default_rng(i), 3, 0.3) for i in range(3)]
    each.append([*each[0][:2], *each[0][:2]])  # equal laws
    arrays = [jnp.asarray(np.stack(x)) for x in zip(*each, strict=True)]

    def total(*arrays):
        return jnp.sum(PAIRWISE[name](*gaussians(*arrays)))

    slopes = quick_jit(jax.grad(total, (0, 1, 2, 3)))
    together = slopes(*arrays)
    for i in range(len(each)):
        for x, y in zip(together, slopes(*(x[i] for x in arrays)), strict=True):
            np.testing.assert_allclose(x[i], y, atol=1e-5)


@pytest.mark.parametrize("separation", [0.3, 1e-3, 1e-6])
def test_the_geometric_jensen_shannon_divergence_is_exact_at_any_separation(separation):
    mean_p, lower_p, mean_q, lower_q = nearby(np.random.default_rng(0), 4, separation)
    p, q = gaussians(mean_p, lower_p, mean_q, lower_q)
    a, b = (oracle.covariance("cholesky", x) for x in (lower_p, lower_q))
    m, n = (oracle.matrix(np.reshape(x, (-1, 1))) for x in (mean_p, mean_q))
    cov = ((a**-1 + b**-1) / 2) ** -1
    mean = cov * (a**-1 * m + b**-1 * n) / 2

    def kl(x, sigma):
        v, ratio = x - mean, cov**-1 * sigma
        trace = sum(ratio[i, i] for i in range(4))
        logs = oracle.mpmath.log(oracle.mpmath.det(ratio))
        return (trace + (v.T * cov**-1 * v)[0] - 4 - logs) / 2

    exact = (kl(m, a) + kl(n, b)) / 2
    assert oracle.relative_error(gj.jensen_shannon_divergence(p, q), exact) <= 5e-7


@pytest.mark.parametrize(("mean", "scale"), [(1.0, 0.5), (1e-2, 1.01), (3e-4, 1.0), (30.0, 1.0)])
def test_an_estimated_jensen_shannon_divergence_is_within_its_standard_error(mean, scale):
    first, second = scipy.stats.norm(0, 1), scipy.stats.norm(mean, scale)

    def integrand(x):
        p, q = first.logpdf(x), second.logpdf(x)
        middle = np.logaddexp(p, q) - np.log(2)
        return 0.5 * (np.exp(p) * (p - middle) + np.exp(q) * (q - middle))

    exact = scipy.integrate.quad(integrand, -10, mean + 10, points=[0, mean], epsabs=1e-12)[0]
    p, q = gj.standard(1), gj.from_scale(jnp.array([mean]), jnp.array([scale]))
    got = gj.jensen_shannon_estimate(jax.random.key(0), p, q, 4000)
    assert abs(got.value - exact) <= 4 * got.standard_error + 1e-6 * exact
    assert got.standard_error <= 0.05 * exact


def test_estimates_take_batches():
    p, q = gj.standard(2), gj.from_scale(jnp.ones((3, 2)), jnp.ones(2))
    for pair in ((p, q), (q, p)):
        assert gj.jensen_shannon_estimate(jax.random.key(0), *pair, 10).value.shape == (3,)


def test_the_univariate_fisher_rao_distance_is_that_of_the_half_plane():
    p, q = gj.from_scale(jnp.array([0.5]), jnp.array([2.0])), gj.from_scale(jnp.ones(1), 0.3)
    x, y = (0.5 / np.sqrt(2), 2.0), (1 / np.sqrt(2), 0.3)
    cosh = 1 + ((x[0] - y[0]) ** 2 + (x[1] - y[1]) ** 2) / (2 * x[1] * y[1])
    expected = np.sqrt(2) * np.arccosh(cosh)
    np.testing.assert_allclose(gj.fisher_rao_distance(p, q), expected, rtol=1e-6)
    np.testing.assert_allclose(gj.fisher_rao_bounds(p, q), [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize("kind", ["diagonal", "cholesky", "precision"])
def test_fisher_rao_distances_have_their_closed_forms_and_bounds_elsewhere(kind):
    rng = np.random.default_rng(0)
    (a, dense_a), (b, dense_b) = (STRUCTURES[kind](rng, 4, np.float32) for _ in range(2))
    zero, one = jnp.zeros(4), jnp.ones(4)
    logs = np.log(scipy.linalg.eigh(dense_a, dense_b, eigvals_only=True))
    p, q = gj.Gaussian(zero, a), gj.Gaussian(zero, b)
    exact = np.sqrt(0.5 * np.sum(logs**2))
    np.testing.assert_allclose(gj.fisher_rao_distance(p, q), exact, rtol=2e-6)
    np.testing.assert_allclose(gj.fisher_rao_bounds(p, q), [exact] * 2, rtol=2e-6)
    moved = gj.Gaussian(one, a)
    square = np.ones(4) @ np.linalg.solve(dense_a, np.ones(4))
    exact = np.sqrt(2) * np.arccosh(1 + square / 4)
    np.testing.assert_allclose(gj.fisher_rao_distance(p, moved), exact, rtol=2e-6)
    other = gj.Gaussian(one, b)
    assert np.isnan(gj.fisher_rao_distance(p, other))
    low, high = gj.fisher_rao_bounds(p, other)
    assert 0.7 * high < low < high
    value, gradients = jax.value_and_grad(gj.fisher_rao_distance, (0, 1))(p, p)
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradients))


def test_between_equal_covariances_each_has_half_of_the_derivative():
    """Where one coordinate differs, the distance is that of it alone."""
    scale, mean = jnp.array([2.0, 1.0]), jnp.array([3.0, 0.0])

    def distance(s, t, n):
        laws = (gj.from_scale(jnp.zeros(n), s[:n]), gj.from_scale(mean[:n], t[:n]))
        return gj.fisher_rao_distance(*laws)

    slopes, alone = (jax.grad(distance, (0, 1))(scale, scale, n) for n in (2, 1))
    for x, y in zip(slopes, alone, strict=True):
        np.testing.assert_allclose(x[0], y[0], rtol=1e-6)
        assert y[0] != 0


def test_second_derivatives_of_a_fisher_rao_distance_are_right_or_unknown():
    with jax.enable_x64(True):
        _, lower, _, other = nearby(np.random.default_rng(0), 3, 0.5, np.float64)
        way = np.tril(np.arange(1.0, 10.0).reshape(3, 3)) / 9
        q = gj.from_cholesky(jnp.zeros(3), other)

        def of_cov(t):
            return gj.fisher_rao_distance(gj.from_cholesky(jnp.zeros(3), lower + t * way), q)

        def of_mean(t):
            return gj.fisher_rao_distance(gj.from_cholesky(t * jnp.ones(3), lower), q)

        slope = jax.grad(of_cov)
        expected = (slope(1e-5) - slope(-1e-5)) / 2e-5
        for mode in (jax.grad, jax.jacfwd):
            np.testing.assert_allclose(mode(slope)(0.0), expected, rtol=1e-8)
        assert jax.grad(of_mean)(0.0) == 0
        assert np.isnan(jax.grad(jax.grad(of_mean))(0.0))


@pytest.mark.parametrize("kind", ["diagonal", "cholesky"])
@pytest.mark.parametrize("scales", [(1e-15, 1e15), (1e12, 1e-3), (2.0, 2.0)])
def test_fisher_rao_distances_of_scales_far_apart_are_those_of_logarithms(kind, scales):
    shape = np.asarray if kind == "diagonal" else np.diag
    sigma = np.array([scales[0], 1.0, scales[1]])
    p, q = (
        gj.Gaussian(
            jnp.zeros(3), getattr(gj, kind.capitalize())(jnp.asarray(shape(x), jnp.float32))
        )
        for x in (sigma, np.ones(3))
    )
    exact = np.sqrt(2 * np.sum(np.log(sigma) ** 2))
    np.testing.assert_allclose(gj.fisher_rao_distance(p, q), exact, rtol=1e-6)
    slopes = jax.grad(gj.fisher_rao_distance)(p, q).cov
    slope = np.asarray(jax.tree.leaves(slopes)[0])
    slope = slope if kind == "diagonal" else np.diag(slope)
    np.testing.assert_allclose(slope * sigma, 2 * np.log(sigma) / exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [1e-25, 1.0, 1e25])
def test_fisher_rao_distances_of_means_have_no_limits_of_squares(shift):
    d, exact = 3, 2 * np.sqrt(2) * np.arcsinh(shift / np.sqrt(8))
    mean = jnp.zeros(d).at[0].set(shift)
    for cov in (gj.Diagonal(jnp.ones(d)), gj.Cholesky(jnp.eye(d))):
        value = gj.fisher_rao_distance(gj.Gaussian(mean, cov), gj.Gaussian(jnp.zeros(d), cov))
        np.testing.assert_allclose(value, exact, rtol=1e-6)
    p, q = (gj.from_scale(x, jnp.ones(1)) for x in (mean[:1], jnp.zeros(1)))
    np.testing.assert_allclose(gj.fisher_rao_distance(p, q), exact, rtol=1e-6)


@pytest.mark.parametrize("far", [10.0, 1e3, 1e5])
def test_fisher_rao_bounds_hold_the_distance_of_means_far_apart(far):
    mean = jnp.array([0.6, -0.8, 0.0]) * far
    cov = gj.Cholesky(jnp.asarray(random_lower(np.random.default_rng(0), 3)))
    p, q = gj.Gaussian(mean, cov), gj.Gaussian(jnp.zeros(3), cov)
    low, high = gj.fisher_rao_bounds(p, q)
    assert low <= gj.fisher_rao_distance(p, q) * (1 + 1e-6)
    assert gj.fisher_rao_distance(p, q) <= high * (1 + 1e-6)


def test_bounds_of_diagonals_are_no_wider_than_the_path_by_coordinates():
    rng = np.random.default_rng(0)
    p, q = (
        gj.from_scale(rng.normal(size=5).astype("f4"), rng.uniform(0.5, 2, 5).astype("f4"))
        for _ in range(2)
    )
    each = [gj.fisher_rao_distance(*(gj.marginal(g, [i]) for g in (p, q))) for i in range(5)]
    low, high = gj.fisher_rao_bounds(p, q)
    assert max(each) <= low <= high <= np.linalg.norm(each) * (1 + 1e-6)


def test_between_a_singular_and_a_regular_law_a_fisher_rao_distance_is_infinite():
    flat, one = gj.from_scale(jnp.zeros(2), jnp.array([0.0, 1.0])), gj.standard(2)
    assert gj.fisher_rao_distance(flat, one) == jnp.inf
    assert all(x == jnp.inf for x in gj.fisher_rao_bounds(flat, one))


def test_the_gradient_of_a_fisher_rao_bound_agrees_with_differences():
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in nearby(np.random.default_rng(0), 3, 0.3, np.float64)]
        way = jnp.tril(jnp.arange(9.0).reshape(3, 3)) / 9

        def along(t):
            mean, lower, *rest = arrays
            return gj.fisher_rao_bounds(*gaussians(mean + t, lower + t * way, *rest)).lower

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(along)(0.0), slope, rtol=1e-7)


@pytest.mark.parametrize("kind", ["isotropic", "cholesky", "circulant"])
def test_a_mean_discrepancy_is_that_of_its_kernel_means(kind):
    rng = np.random.default_rng(0)
    (a, dense_a), (b, dense_b) = (STRUCTURES[kind](rng, 4, np.float32) for _ in range(2))
    p, q = gj.Gaussian(jnp.zeros(4), a), gj.Gaussian(0.5 * jnp.ones(4), b)

    def mean(cov, v):
        inner = v @ np.linalg.solve(cov + 1.3**2 * np.eye(4), v)
        return np.linalg.det(np.eye(4) + cov / 1.3**2) ** -0.5 * np.exp(-0.5 * inner)

    zero, v = np.zeros(4), np.full(4, 0.5)
    square = mean(2 * dense_a, zero) + mean(2 * dense_b, zero) - 2 * mean(dense_a + dense_b, v)
    value = gj.maximum_mean_discrepancy(p, q, bandwidth=1.3)
    np.testing.assert_allclose(value, np.sqrt(square), rtol=1e-5)
    value, gradient = jax.value_and_grad(
        lambda p: gj.maximum_mean_discrepancy(p, p, bandwidth=1.3)
    )(p)
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))
    assert np.isnan(gj.maximum_mean_discrepancy(p, q, bandwidth=-1.0))


def kernel_mean(cov, shift, bandwidth):
    """|I + S/ℓ²|^−½ exp(−½ vᵀ(S + ℓ²I)⁻¹v) to 60 digits."""
    inner = oracle.mpmath.eye(cov.rows) + cov / bandwidth**2
    along = (shift.T * inner**-1 * shift)[0] / bandwidth**2
    return oracle.mpmath.exp(-along / 2) / oracle.mpmath.sqrt(oracle.mpmath.det(inner))


def of_kind(kind, mean, lower):
    """A law of the structure from a triangle, its mean and Σ to 60 digits."""
    scale, factor = np.diag(lower).copy(), lower[:, :2].copy()
    cov = {
        "cholesky": lambda: gj.Cholesky(jnp.asarray(lower)),
        "precision": lambda: gj.PrecisionCholesky(jnp.asarray(lower)),
        "diagonal": lambda: gj.Diagonal(jnp.asarray(scale)),
        "root": lambda: gj.Root(jnp.asarray(factor)),
        "low_rank": lambda: gj.LowRank(jnp.asarray(scale), jnp.asarray(factor)),
    }[kind]()
    full, thin, diagonal = (oracle.matrix(x) for x in (lower, factor, np.diag(scale)))
    sigma = {
        "cholesky": lambda: full * full.T,
        "precision": lambda: (full * full.T) ** -1,
        "diagonal": lambda: diagonal**2,
        "root": lambda: thin * thin.T,
        "low_rank": lambda: diagonal**2 + thin * thin.T,
    }[kind]()
    return gj.Gaussian(jnp.asarray(mean), cov), oracle.matrix(np.reshape(mean, (-1, 1))), sigma


@pytest.mark.parametrize("kind", ["cholesky", "precision", "diagonal", "root", "low_rank"])
def test_a_mean_discrepancy_is_exact_at_any_separation(kind):
    for separation in (0.9, 0.3, 1e-2, 1e-4, 1e-6):
        mean, lower, *other = nearby(np.random.default_rng(0), 3, separation)
        p, m, a = of_kind(kind, mean, lower)
        q, n, b = of_kind(kind, *other)
        square = kernel_mean(2 * a, 0 * m, 2) + kernel_mean(2 * b, 0 * m, 2)
        exact = oracle.mpmath.sqrt(square - 2 * kernel_mean(a + b, m - n, 2))
        value = gj.maximum_mean_discrepancy(p, q, bandwidth=2.0)
        assert oracle.relative_error(value, exact) <= 5e-7
        assert gj.maximum_mean_discrepancy(p, p, bandwidth=2.0) == 0


@pytest.mark.parametrize("separation", [0.5, 1e-4])
def test_gradients_of_a_mean_discrepancy_are_exact_at_any_separation(separation):
    arrays = nearby(np.random.default_rng(0), 3, separation)

    def distance(*arrays):
        return gj.maximum_mean_discrepancy(*gaussians(*arrays), bandwidth=2.0)

    slopes = quick_jit(jax.grad(distance, (0, 1, 2, 3)))
    got = slopes(*map(jnp.asarray, arrays))
    with jax.enable_x64(True):
        exact = slopes(*(jnp.asarray(x, jnp.float64) for x in arrays))
    for x, y in zip(got, exact, strict=True):
        np.testing.assert_allclose(x, y, rtol=5e-6, atol=1e-6 * np.max(np.abs(y)))


def test_mean_discrepancies_of_wide_laws_are_those_of_the_narrow_one():
    d = 100
    wide, narrow = gj.from_isotropic(jnp.zeros(d), 1e3), gj.from_isotropic(jnp.zeros(d), 1.0)
    for pair in ((wide, narrow), (narrow, wide)):
        value, slopes = jax.value_and_grad(gj.maximum_mean_discrepancy, (0, 1))(
            *pair, bandwidth=20.0
        )
        np.testing.assert_allclose(value, (1 + 2 / 20**2) ** (-d / 4), rtol=1e-5)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


def test_a_barycenter_satisfies_its_fixed_point_equation():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        parts = [STRUCTURES["cholesky"](rng, 3, np.float64) for _ in range(3)]
        lower = jnp.stack([cov.lower for cov, _ in parts])
        means, weights = jnp.asarray(rng.normal(size=(3, 3))), jnp.array([0.2, 0.3, 0.5])
        g = gj.Gaussian(means, gj.Cholesky(lower))
        q = quick_jit(gj.wasserstein2_barycenter)(g, weights=weights)
        sigma = np.asarray(gj.covariance(q))
        root = scipy.linalg.sqrtm(sigma)
        total = sum(
            w * scipy.linalg.sqrtm(root @ dense @ root).real
            for w, (_, dense) in zip(np.asarray(weights), parts, strict=True)
        )
        np.testing.assert_allclose(total, sigma, atol=1e-10)
        np.testing.assert_allclose(q.mean, weights @ means, rtol=1e-12)

        def loss(t):
            return jnp.sum(gj.covariance(gj.wasserstein2_barycenter(gj.scale_by(g, 1 + t))))

        slope = quick_jit(jax.grad(loss))(0.0)
        np.testing.assert_allclose(slope, 2 * loss(0.0), rtol=1e-8)  # it scales as the laws do


def test_barycenters_of_a_batch_are_those_of_each_and_one_bad_law_spoils_its_own():
    rng = np.random.default_rng(0)
    lower = np.stack([random_lower(rng, 3) for _ in range(6)]).reshape(2, 3, 3, 3)
    lower[1, 2] = np.nan
    means = jnp.asarray(rng.normal(size=(2, 3, 3)), jnp.float32)
    g = gj.Gaussian(means, gj.Cholesky(jnp.asarray(lower, jnp.float32)))
    q = quick_jit(gj.wasserstein2_barycenter)(g)
    mapped = jax.vmap(gj.wasserstein2_barycenter, in_axes=1)(g)
    assert q.batch_shape == mapped.batch_shape == (3,)
    assert np.all(np.isnan(gj.variance(q)[2]))
    for i in range(2):
        each = gj.wasserstein2_barycenter(jax.tree.map(lambda x, i=i: x[:, i], g))
        for law in (q, mapped):
            np.testing.assert_allclose(law.cov.lower[i], each.cov.lower, atol=1e-5)
            np.testing.assert_allclose(law.mean[i], each.mean, atol=1e-6)

    def loss(g):
        return jnp.sum(gj.covariance(gj.wasserstein2_barycenter(g))[:2])

    gradient = quick_jit(jax.grad(loss))(g).cov.lower
    assert np.all(np.isfinite(gradient[:, :2]))


def test_a_barycenter_that_has_not_converged_is_no_number():
    narrow = [np.array([[1.0, 0.0], [1.0, 1e-2]]), np.array([[1e-2, 0.0], [-1e-2, 1.0]])]
    g = gj.from_cholesky(jnp.zeros((2, 2)), jnp.asarray(narrow, jnp.float32))
    few, many = (
        quick_jit(gj.wasserstein2_barycenter, static_argnames="steps")(g, steps=n) for n in (3, 500)
    )
    assert np.all(np.isnan(gj.variance(few)))
    sigma, dense = (np.asarray(gj.covariance(x), float) for x in (many, g))
    root = scipy.linalg.sqrtm(sigma).real
    total = sum(0.5 * scipy.linalg.sqrtm(root @ x @ root).real for x in dense)
    np.testing.assert_allclose(total, sigma, atol=1e-4)


def test_weights_of_a_barycenter_may_have_fewer_digits():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        g = gj.from_isotropic(jnp.zeros((3, 2)), jnp.array([1.0, 2.0, 3.0]))
        q = gj.wasserstein2_barycenter(g, weights=jnp.full(3, 1 / 3, jnp.float32))
        np.testing.assert_allclose(gj.stddev(q), [2.0, 2.0], rtol=1e-12)


def test_barycenters_refuse_weights_of_another_number():
    g = gj.from_scale(jnp.zeros((2, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match="weights must have 2 entries"):
        gj.wasserstein2_barycenter(g, weights=[1.0])
    with pytest.raises(ValueError, match="g must have one Gaussian or more"):
        gj.wasserstein2_barycenter(gj.from_scale(jnp.zeros((0, 3)), jnp.ones(3)))
    for weights in ([0.5, 0.6], [1.5, -0.5], [np.nan, 1.0]):
        assert np.all(np.isnan(gj.wasserstein2_barycenter(g, weights=weights).mean))
