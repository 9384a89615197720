"""Optimal transport between Gaussians, against 60 digits and closed forms."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracle
import pytest
import scipy.linalg
from catalogue import STRUCTURES, random_lower
from compiling import eagerly, quick_jit
from test_divergences import gaussians, nearby
from test_pairs import largest

import gaussjax as gj


def root_of(matrix):
    values, vectors = mpmath.eigsy(matrix)
    roots = mpmath.diag([mpmath.sqrt(max(x, 0)) for x in values])
    return vectors * roots * vectors.T


def squared(mean_p, a, mean_q, b):
    """By the trace of a root, of which 60 digits leave enough."""
    root = root_of(a)
    cross = mpmath.eigsy(root * b * root, eigvals_only=True)
    traces = sum(a[i, i] + b[i, i] for i in range(a.rows))
    pairs = zip(mean_p, mean_q, strict=True)
    means = sum((mpmath.mpf(float(x)) - mpmath.mpf(float(y))) ** 2 for x, y in pairs)
    return means + traces - 2 * sum(mpmath.sqrt(max(x, 0)) for x in cross)


@pytest.mark.parametrize("separation", [0.3, 1e-3, 1e-6])
@pytest.mark.parametrize("d", [1, 4, 17])
def test_the_error_is_of_the_order_of_rounding_at_any_separation(d, separation):
    arrays = nearby(np.random.default_rng(d), d, separation)
    p, q = gaussians(*arrays)
    exact = mpmath.sqrt(
        squared(
            arrays[0],
            oracle.covariance("cholesky", arrays[1]),
            arrays[2],
            oracle.covariance("cholesky", arrays[3]),
        )
    )
    size = np.linalg.norm(arrays[1])
    assert abs(float(gj.wasserstein2(p, q)) - float(exact)) <= 1e-6 * size
    value = float(gj.frechet_distance(p, q))
    assert abs(value - float(exact**2)) <= 1e-6 * size * (float(exact) + 1e-6 * size)


def dense_map(a, b):
    root = scipy.linalg.sqrtm(a).real
    inverse = np.linalg.inv(root)
    return inverse @ scipy.linalg.sqrtm(root @ b @ root).real @ inverse


KINDS = ["isotropic", "cholesky", "precision", "low_rank", "kronecker", "block_diagonal"]
PAIRS = [(k, k) for k in [*KINDS, "stacked_blocks", "circulant"]] + [
    ("diagonal", "cholesky"),
    ("block_diagonal", "diagonal"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_structure_agrees_with_dense_linear_algebra_in_float64(pair):
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        (a, dense_a), (b, dense_b) = (STRUCTURES[kind](rng, 6, np.float64) for kind in pair)
        m, n, x = rng.normal(size=(3, 6))
        p, q = (gj.Gaussian(jnp.asarray(y), c) for y, c in ((m, a), (n, b)))

        def both(p, q, x):
            return gj.frechet_distance(p, q), gj.wasserstein2_map(p, q, x)

        value, moved = (np.asarray(y) for y in eagerly(both)(p, q, jnp.asarray(x)))
    matrix = dense_map(dense_a, dense_b)
    expected = np.sum((m - n) ** 2) + np.trace(dense_a + dense_b - 2 * matrix @ dense_a)
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(moved, n + matrix @ (x - m), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["isotropic", "cholesky", "precision", "kronecker", "circulant"])
def test_distances_to_itself_and_their_gradients_are_zero(kind):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 6, np.float32)
    g = gj.Gaussian(jnp.ones(6), cov)
    for function in (gj.wasserstein2, gj.frechet_distance):
        value, gradients = quick_jit(jax.value_and_grad(function, (0, 1)))(g, g)
        assert value == 0
        assert all(np.max(np.abs(leaf)) <= 1e-6 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("columns", [(3, 3), (2, 4), (5, 1)])
def test_distances_of_singular_laws_and_their_derivatives_are_those_of_roots(columns):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        f, g = (jnp.asarray(rng.normal(size=(5, n))) for n in columns)
        ways = [jnp.asarray(rng.normal(size=x.shape)) for x in (f, g)]

        def along(t):
            p, q = (
                gj.from_root(jnp.zeros(5), x + t * w) for x, w in zip((f, g), ways, strict=True)
            )
            return gj.frechet_distance(p, q)

        a, b = (np.asarray(x @ x.T) for x in (f, g))
        cross = np.linalg.svd(np.asarray(g.T @ f), compute_uv=False)
        np.testing.assert_allclose(along(0.0), np.trace(a + b) - 2 * np.sum(cross), rtol=1e-10)
        step = 1e-4
        for order in (along, jax.grad(along)):
            slope = (order(step) - order(-step)) / (2 * step)
            for way in (jax.grad, jax.jacfwd):
                np.testing.assert_allclose(quick_jit(way(order))(0.0), slope, rtol=1e-6)


@pytest.mark.parametrize("columns", [2, 5])
def test_fid_from_few_features_makes_no_matrix_and_agrees_with_float64(columns):
    rng = np.random.default_rng(columns)
    d = 300
    features = [rng.normal(size=(20 * n, d)) + 0.1 * i for i, n in enumerate((2, columns))]

    def fid(x, y):
        laws = [
            gj.from_root(z.mean(0), (z - z.mean(0, keepdims=True)).T / (len(z) - 1) ** 0.5)
            for z in (x, y)
        ]
        return gj.frechet_distance(*laws)

    arrays = [jnp.asarray(x, jnp.float32) for x in features]
    value, gradient = quick_jit(jax.value_and_grad(fid))(*arrays)
    assert largest(fid, *arrays) < d * d
    m, n = (x.mean(0) for x in features)
    a, b = (np.cov(x.T) for x in features)
    roots = [(x - x.mean(0)).T / (len(x) - 1) ** 0.5 for x in features]
    cross = np.sum(np.linalg.svd(roots[0].T @ roots[1], compute_uv=False))
    np.testing.assert_allclose(value, np.sum((m - n) ** 2) + np.trace(a + b) - 2 * cross, rtol=1e-5)
    assert np.all(np.isfinite(gradient))


def test_a_wide_root_has_the_derivatives_of_its_covariance():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        f, g = jnp.asarray(rng.normal(size=(4, 9))), jnp.asarray(rng.normal(size=(4, 4)))
        way = jnp.asarray(rng.normal(size=f.shape))

        def along(f, way):
            def moved(t):
                return gj.frechet_distance(gj.from_root(jnp.zeros(4), f + t * way), q)

            return moved

        q = gj.from_root(jnp.zeros(4), g)
        for order in (along(f, way), jax.grad(along(f, way))):
            slope = (order(1e-5) - order(-1e-5)) / 2e-5
            for mode in (jax.grad, jax.jacfwd):
                np.testing.assert_allclose(quick_jit(mode(order))(0.0), slope, rtol=1e-6)
        flat, kept = f.at[1].set(f[0]), way.at[:2].set(0)  # singular: first ones alone
        moved = along(flat, kept)
        slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(moved)(0.0), slope, rtol=1e-7)
        assert np.isnan(jax.grad(jax.grad(moved))(0.0))


def test_a_singular_law_of_low_rank_has_gradients():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        scale, factor = jnp.asarray([0.0, 0.0, 1.0, 2.0]), jnp.asarray(rng.normal(size=(4, 1)))
        way = jnp.asarray(rng.normal(size=factor.shape))

        def along(t):
            p = gj.Gaussian(jnp.zeros(4), gj.LowRank(scale, factor + t * way))
            return gj.frechet_distance(p, gj.standard(4))

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        np.testing.assert_allclose(quick_jit(jax.grad(along))(0.0), slope, rtol=1e-7)


def test_a_distance_has_no_second_derivative_at_its_kink():
    for function in (gj.wasserstein2, gj.hellinger_distance):
        assert np.all(np.isnan(jax.hessian(lambda m, f=function: f(at(m), at(0.0)))(0.0)))
        assert np.isfinite(jax.hessian(lambda m, f=function: f(at(m), at(0.0)))(0.5))


def at(mean):
    return gj.from_scale(jnp.reshape(mean, (1,)), jnp.ones(1))


def test_the_map_takes_one_law_to_the_other_and_back():
    p, q = gaussians(*nearby(np.random.default_rng(0), 4, 0.3))
    x = gj.sample(jax.random.key(0), p, (5,))
    moved = gj.wasserstein2_map(p, q, x)
    np.testing.assert_allclose(gj.wasserstein2_map(q, p, moved), x, atol=2e-5)
    jacobian = jax.jacfwd(lambda x: gj.wasserstein2_map(p, q, x))(x[0])
    np.testing.assert_allclose(jacobian, jacobian.T, atol=2e-6)
    transported = jacobian @ gj.covariance(p) @ jacobian.T
    np.testing.assert_allclose(transported, gj.covariance(q), atol=1e-5)


def test_a_bad_element_of_a_batch_leaves_the_others_alone():
    lower = np.stack([np.eye(3), np.full((3, 3), np.nan), 2 * np.eye(3)]).astype(np.float32)
    p = gj.Gaussian(jnp.zeros(3), gj.Cholesky(jnp.asarray(lower)))
    values = np.asarray(gj.wasserstein2(p, gj.standard(3)))
    np.testing.assert_allclose(values[[0, 2]], [0, np.sqrt(3)], atol=1e-6)
    assert np.isnan(values[1])


@pytest.mark.parametrize("unit", [1e-22, 1e22])
@pytest.mark.parametrize("kind", ["diagonal", "cholesky", "precision", "low_rank"])
def test_distances_and_maps_scale_with_units_whose_squares_leave_the_range(kind, unit):
    rng = np.random.default_rng(0)
    laws = [gj.Gaussian(jnp.ones(3) * i, STRUCTURES[kind](rng, 3, np.float32)[0]) for i in range(2)]
    x, unit = jnp.array([1.0, -2.0, 0.5]), jnp.float32(unit)

    def of(p, q, x):
        return gj.wasserstein2(p, q), gj.wasserstein2_map(p, q, x)

    plain, wide = of(*laws, x), of(*(gj.scale_by(g, unit) for g in laws), unit * x)
    for a, b in zip(plain, wide, strict=True):
        np.testing.assert_allclose(b / unit, a, rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-22, 1e15])
def test_a_barycenter_scales_with_its_laws(unit):
    lower = np.stack([random_lower(np.random.default_rng(i), 3) for i in range(3)])
    laws = [gj.from_cholesky(jnp.zeros((3, 3)), jnp.float32(u) * lower) for u in (1.0, unit)]
    stddevs = [gj.stddev(gj.wasserstein2_barycenter(g)) for g in laws]
    np.testing.assert_allclose(stddevs[1] / np.float32(unit), stddevs[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["diagonal", "circulant", "stacked_blocks", "kronecker"])
def test_pairs_of_a_structure_make_no_matrix(kind):
    d = 960
    covs = [STRUCTURES[kind](np.random.default_rng(i), d, np.float32)[0] for i in range(2)]
    p, q = (gj.Gaussian(jnp.zeros(d), cov) for cov in covs)
    assert largest(gj.wasserstein2, p, q) <= d * d // 3
