"""Rényi divergences and their kin, against 60 digits, near and far."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracle
import pytest
from catalogue import STRUCTURES, random_lower
from compiling import eagerly, quick_jit
from test_divergences import gaussians, nearby
from test_pairs import largest

import gaussjax as gj

ORDERS = (1e-3, 0.5, 0.999, 1.1, 2.0)
KINDS = {"cholesky": gj.Cholesky, "precision": gj.PrecisionCholesky}


def renyi(mean_p, a, mean_q, b, order):
    """By the textbook formula in 60 digits; infinite where M is not positive definite."""
    order = mpmath.mpf(float(order))
    m = order * b + (1 - order) * a
    if min(mpmath.eigsy(m, eigvals_only=True)) <= 0:
        return mpmath.inf
    v = oracle.matrix(np.reshape(mean_p, (-1, 1))) - oracle.matrix(np.reshape(mean_q, (-1, 1)))
    logs = [mpmath.log(mpmath.det(x)) for x in (m, a, b)]
    logs = (logs[0] - (1 - order) * logs[1] - order * logs[2]) / (1 - order)
    return (order * (v.T * m**-1 * v)[0] + logs) / 2


def check(value, exact, tolerance=5e-7):
    if exact == mpmath.inf:
        assert value == jnp.inf
    else:
        assert oracle.relative_error(value, exact) <= tolerance


@quick_jit
def of_every_order(p, q):
    def of(order):
        return gj.renyi_divergence(p, q, order=order)

    return jax.vmap(of)(jnp.asarray(ORDERS, jnp.float32))


@pytest.mark.parametrize("separation", [0.3, 1e-3, 1e-6])
@pytest.mark.parametrize(
    ("d", "kind"), [(1, "cholesky"), (4, "cholesky"), (17, "cholesky"), (4, "precision")]
)
def test_every_order_is_exact_at_any_separation(d, separation, kind):
    arrays = nearby(np.random.default_rng(d), d, separation)
    p, q = gaussians(*arrays, KINDS[kind])
    a, b = (oracle.covariance(kind, x) for x in (arrays[1], arrays[3]))
    found = of_every_order(p, q)
    for order, value in zip(ORDERS, found, strict=True):
        check(value, renyi(arrays[0], a, arrays[2], b, np.float32(order)))
    half, two = (renyi(arrays[0], a, arrays[2], b, order) for order in (0.5, 2.0))
    check(gj.bhattacharyya_distance(p, q), half / 2)
    check(gj.hellinger_distance(p, q), mpmath.sqrt(-mpmath.expm1(-half / 2)))
    if two < 1:
        check(gj.chi_squared_divergence(p, q), mpmath.expm1(two))


@pytest.mark.parametrize("order", [0.3, 0.5, 2.0])
def test_diagonals_and_circulants_are_exact_at_any_separation(order):
    rng = np.random.default_rng(0)
    for separation in (3.0, 1e-1, 1e-3, 1e-6):
        scale = rng.uniform(0.5, 2.0, 4).astype(np.float32)
        other = (scale * (1 + separation * rng.uniform(0, 0.4, 4))).astype(np.float32)
        zero = np.zeros(4, np.float32)
        sigmas = [oracle.covariance("diagonal", x) for x in (scale, other)]
        p, q = gaussians(zero, scale, zero, other, gj.Diagonal)
        check(
            gj.renyi_divergence(p, q, order=order), renyi(zero, sigmas[0], zero, sigmas[1], order)
        )
        spectra = [np.concatenate([x[:3], x[1:2]]) for x in (scale, other)]
        sigmas = [mpmath.diag([mpmath.mpf(float(x)) for x in s]) for s in spectra]
        p, q = gaussians(zero, spectra[0], zero, spectra[1], gj.Circulant)
        check(
            gj.renyi_divergence(p, q, order=order), renyi(zero, sigmas[0], zero, sigmas[1], order)
        )


@pytest.mark.parametrize("wide", [1e2, 1e4, 1e6])
def test_far_apart_no_digits_are_lost(wide):
    """One direction wider and one narrower: every term is a logarithm of a large number."""
    first, second = np.float32([wide, 1 / wide]), np.ones(2, np.float32)
    zero = np.zeros(2, np.float32)
    a, b = (oracle.covariance("diagonal", x) for x in (first, second))
    for kind, shape in ((gj.Diagonal, np.asarray), (gj.Cholesky, np.diag)):
        p, q = gaussians(zero, shape(first), zero, shape(second), kind)
        check(gj.renyi_divergence(p, q, order=0.5), renyi(zero, a, zero, b, 0.5))
        check(gj.renyi_divergence(p, q, order=0.9), renyi(zero, a, zero, b, 0.9), 1e-6)


@pytest.mark.parametrize("order", [0.5, 0.9])
def test_scales_whose_squares_leave_the_range_keep_their_digits(order):
    first, second = np.float32([1e15, 1e-15, 1.0]), np.float32([1e-15, 1e15, 1e-12])
    means = np.float32([0.0, 0.0, 1e10]), np.zeros(3, np.float32)
    exact = renyi(
        means[0], oracle.covariance("diagonal", first),
        means[1], oracle.covariance("diagonal", second), order,
    )  # fmt: skip
    p, q = gaussians(means[0], first, means[1], second, gj.Diagonal)
    value, slopes = jax.value_and_grad(gj.renyi_divergence, (0, 1))(p, q, order=order)
    check(value, exact, 1e-6)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("kind", ["diagonal", "cholesky", "precision", "circulant", "low_rank"])
def test_an_order_that_is_traced_has_the_gradients_of_a_number(kind):
    """Also where a larger order would be infinite."""
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 4, np.float32)
    q = gj.Gaussian(jnp.zeros(4), cov)
    p = gj.Gaussian(jnp.ones(4), gj.scale_by(q, 3.0).cov)
    slope = jax.grad(gj.renyi_divergence)
    static = slope(p, q, order=0.5)
    traced = quick_jit(lambda p, q, order: slope(p, q, order=order))(p, q, jnp.float32(0.5))
    for x, y in zip(jax.tree.leaves(traced), jax.tree.leaves(static), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


SAME = [(k, k) for k in ("low_rank", "block_diagonal", "stacked_blocks", "circulant", "root")]
SAME += [(k, k) for k in ("toeplitz", "banded_precision", "kronecker")]
MIXED = [("diagonal", "low_rank"), ("cholesky", "precision"), ("toeplitz", "isotropic")]
MIXED += [("banded_precision", "diagonal"), ("kronecker", "isotropic")]


@pytest.mark.parametrize("pair", SAME + MIXED, ids="-".join)
def test_every_structure_agrees_with_dense_linear_algebra_in_float64(pair):
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        (a, dense_a), (b, dense_b) = (STRUCTURES[kind](rng, 6, np.float64) for kind in pair)
        m, n = rng.normal(size=(2, 6))
        p, q = (gj.Gaussian(jnp.asarray(x), c) for x, c in ((m, a), (n, b)))
        orders = (0.3, 1.2)
        found = eagerly(lambda p, q: [gj.renyi_divergence(p, q, order=order) for order in orders])(
            p, q
        )
    for order, value in zip(orders, np.asarray(found), strict=True):
        mean = order * dense_b + (1 - order) * dense_a
        if np.linalg.eigvalsh(mean)[0] <= 0:
            assert value == np.inf
            continue
        logs = [np.linalg.slogdet(x)[1] for x in (mean, dense_a, dense_b)]
        logs = (logs[0] - (1 - order) * logs[1] - order * logs[2]) / (1 - order)
        distance = (m - n) @ np.linalg.solve(mean, m - n)
        np.testing.assert_allclose(value, 0.5 * (order * distance + logs), rtol=1e-10)


@pytest.mark.parametrize(
    ("kind", "separation"),
    [
        ("low_rank", 1e-3),
        ("toeplitz", 1e-3),
        ("banded_precision", 1e-2),
        ("banded_precision", 1e-5),
    ],
)
def test_structures_that_are_not_dense_are_exact_however_close_too(kind, separation):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 24, np.float32)
    rng = np.random.default_rng(1)
    other = jax.tree.map(
        lambda x: x * (1 + jnp.float32(separation) * rng.uniform(0, 1, x.shape).astype("f4")), cov
    )
    p, q = (gj.Gaussian(jnp.zeros(24), c) for c in (cov, other))

    def both(p, q):
        return jnp.stack([gj.renyi_divergence(p, q, order=order) for order in (0.5, 2.0)])

    values = quick_jit(both)(p, q)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), (p, q))
        np.testing.assert_allclose(values, quick_jit(both)(*wide), rtol=1e-5)


@pytest.mark.parametrize(("kind", "order"), [("cholesky", 0.3), ("precision", 1.2)])
def test_derivatives_agree_with_autodiff_of_the_textbook_formula(kind, order):
    def naive(mean_p, lower_p, mean_q, lower_q, order):
        a, b = lower_p @ lower_p.T, lower_q @ lower_q.T
        if kind == "precision":
            a, b = jnp.linalg.inv(a), jnp.linalg.inv(b)
        m, v = order * b + (1 - order) * a, mean_p - mean_q
        logs = [jnp.linalg.slogdet(x)[1] for x in (m, a, b)]
        logs = (logs[0] - (1 - order) * logs[1] - order * logs[2]) / (1 - order)
        return 0.5 * (order * v @ jnp.linalg.solve(m, v) + logs)

    def ours(*arrays):
        return gj.renyi_divergence(*gaussians(*arrays[:4], KINDS[kind]), order=arrays[4])

    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arrays = [jnp.asarray(x) for x in nearby(rng, 4, 0.2, np.float64)] + [jnp.asarray(order)]
        ways = [jnp.tril(rng.normal(size=x.shape)) if x.ndim == 2 else x * 0.3 for x in arrays]

        def derivatives(f):
            def along(t):
                return f(*(x + t * way for x, way in zip(arrays, ways, strict=True)))

            slopes = jax.grad(f, (0, 1, 2, 3, 4))(*arrays)
            slopes = [jnp.tril(x) if x.ndim == 2 else x for x in slopes]
            return slopes, jax.grad(along)(0.0), jax.jacfwd(jax.grad(along))(0.0)

        got, expected = (quick_jit(lambda f=f: derivatives(f))() for f in (ours, naive))
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("order", [0.3, 1.05])
def test_derivatives_of_products_are_those_of_the_dense_matrices(order):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        p, q = (
            gj.Gaussian(
                jnp.asarray(rng.normal(size=6)),
                gj.Kronecker(
                    tuple(
                        gj.Cholesky(jnp.asarray(np.eye(n) + 0.2 * np.tril(rng.normal(size=(n, n)))))
                        for n in (2, 3)
                    )
                ),
            )
            for _ in range(2)
        )
        start = (p, q, jnp.asarray(order))
        ways = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), start)

        def dense(g):
            lowers = [jnp.tril(f.lower) for f in g.cov.factors]
            return gj.from_cholesky(g.mean, jnp.kron(*lowers))

        def derivatives(form):
            def along(t):
                a, b, c = jax.tree.map(lambda x, w: x + t * 0.1 * w, start, ways)
                return gj.renyi_divergence(form(a), form(b), order=c)

            return along(0.0), jax.grad(along)(0.0), jax.jacfwd(jax.grad(along))(0.0)

        got, expected = (quick_jit(lambda f=f: derivatives(f))() for f in (lambda g: g, dense))
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["isotropic", "cholesky", "precision", "circulant", "kronecker"])
def test_all_are_zero_between_equal_gaussians_with_zero_gradients(kind):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 6, np.float32)
    g = gj.Gaussian(jnp.ones(6), cov)

    def together(p, q):
        values = gj.bhattacharyya_distance(p, q), gj.hellinger_distance(p, q)
        return sum(values) + gj.chi_squared_divergence(p, q) + gj.renyi_divergence(p, q, order=0.7)

    value, gradients = quick_jit(jax.value_and_grad(together, (0, 1)))(g, g)
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradients))


def test_the_hessian_at_equality_is_the_order_times_that_of_the_kl():
    with jax.enable_x64(True):
        _, lower, _, _ = nearby(np.random.default_rng(1), 3, 0.1, np.float64)
        p = gj.from_cholesky(jnp.zeros(3), jnp.asarray(lower))

        def hessian(f):
            def moved(t):
                return f(p, gj.from_cholesky(t * jnp.ones(3), lower * (1 + t * 0.3)))

            return jax.grad(jax.grad(moved))(0.0)

        whole = hessian(gj.kl_divergence)
        for order in (0.3, 1.5):
            got = hessian(lambda p, q, order=order: gj.renyi_divergence(p, q, order=order))
            np.testing.assert_allclose(got, order * whole, rtol=1e-12)


def test_order_one_is_the_kl_and_orders_that_are_not_positive_are_refused_or_nan():
    p, q = gaussians(*nearby(np.random.default_rng(0), 3, 0.3))
    kl = gj.kl_divergence(p, q)
    orders = jnp.array([1.0, 0.0, -1.0, jnp.nan, jnp.inf, 0.9999])
    values = np.asarray(gj.renyi_divergence(p, q, order=orders))
    assert values[0] == kl == gj.renyi_divergence(p, q, order=1)
    assert np.all(np.isnan(values[1:5]))
    np.testing.assert_allclose(values[5], kl, rtol=1e-3)
    slope = jax.grad(lambda order: gj.renyi_divergence(p, q, order=order))(jnp.float32(1.0))
    assert np.isnan(slope)
    with pytest.raises(TypeError, match="order"):
        gj.renyi_divergence(p, q, order=np.complex64(0.5))
    for order in (0, -1.0, np.inf):
        with pytest.raises(ValueError, match="order must be positive"):
            gj.renyi_divergence(p, q, order=order)


def test_a_bad_element_of_a_batch_leaves_the_others_alone():
    lower = np.stack([random_lower(np.random.default_rng(i), 3) for i in range(4)])
    lower[2, 1, 1] = -1.0
    p = gj.Gaussian(jnp.zeros(3), gj.Cholesky(jnp.asarray(lower)))
    q = gj.standard(3)
    for order in (0.5, 1.05):
        values = np.asarray(gj.renyi_divergence(p, q, order=order))
        assert np.isnan(values[2])
        for i in (0, 1, 3):
            one = gj.Gaussian(jnp.zeros(3), gj.Cholesky(jnp.asarray(lower[i])))
            np.testing.assert_allclose(
                values[i], gj.renyi_divergence(one, q, order=order), rtol=1e-6
            )


def test_between_a_singular_and_a_regular_law_distances_are_largest():
    flat, one = gj.from_scale(jnp.zeros(2), jnp.array([0.0, 1.0])), gj.standard(2)
    dense = gj.Gaussian(jnp.zeros(2), gj.Cholesky(jnp.array([[1.0, 0.0], [1.0, 0.0]])))
    for p in (flat, dense):
        for pair in ((p, one), (one, p)):
            assert gj.bhattacharyya_distance(*pair) == jnp.inf
            assert gj.hellinger_distance(*pair) == 1
    assert gj.bhattacharyya_distance(flat, flat) == 0
    flat, one = (gj.Gaussian(jnp.zeros(2), gj.Circulant(jnp.array([1.0, x]))) for x in (0.0, 1.0))
    for pair in ((flat, one), (one, flat)):
        assert gj.bhattacharyya_distance(*pair) == jnp.inf
        assert gj.renyi_divergence(*pair, order=2) == jnp.inf


@pytest.mark.parametrize("order", [0.5, 1.2])
@pytest.mark.parametrize(
    "kind",
    [
        "low_rank",
        "block_diagonal",
        "stacked_blocks",
        "circulant",
        "banded_precision",
        "kronecker",
        "toeplitz",
    ],
)
def test_pairs_of_a_structure_make_no_matrix(kind, order):
    d = 960
    covs = [STRUCTURES[kind](np.random.default_rng(i), d, np.float32)[0] for i in range(2)]
    p, q = (gj.Gaussian(jnp.zeros(d), cov) for cov in covs)

    def distance(p, q):
        return gj.renyi_divergence(p, q, order=order)

    assert largest(distance, p, q) <= d * d // 2


CLOSE = [(k, k) for k in ("low_rank", "toeplitz", "banded_precision")]
CLOSE += [("low_rank", "diagonal")]


@pytest.mark.parametrize("pair", CLOSE, ids="-".join)
def test_orders_above_one_of_structures_are_those_of_dense_matrices(pair):
    rng = np.random.default_rng(3)
    d, order = 12, 1.2
    with jax.enable_x64(True):
        (a, dense_a), (b, dense_b) = (STRUCTURES[kind](rng, d, np.float64) for kind in pair)
        p, q = gj.Gaussian(jnp.ones(d), a), gj.Gaussian(jnp.zeros(d), b)

        def along(f):
            return gj.renyi_divergence(gj.scale_by(p, f), q, order=order)

        of = quick_jit(along)
        assert of(3.0) == np.inf
        factor = 0.2
        mean = order * dense_b + (1 - order) * factor**2 * dense_a
        assert np.linalg.eigvalsh(mean)[0] > 0
        logs = [np.linalg.slogdet(x)[1] for x in (mean, factor**2 * dense_a, dense_b)]
        logs = (logs[0] - (1 - order) * logs[1] - order * logs[2]) / (1 - order)
        distance = factor**2 * np.sum(np.linalg.inv(mean))
        np.testing.assert_allclose(of(factor), 0.5 * (order * distance + logs), rtol=1e-9)
        slope = (of(factor * (1 + 1e-6)) - of(factor * (1 - 1e-6))) / (2e-6 * factor)
        np.testing.assert_allclose(quick_jit(jax.grad(along))(factor), slope, rtol=1e-6)


def test_columns_of_a_law_may_make_up_for_noise_that_an_order_subtracts():
    """A row with more noise in p than order 2 allows, but for what W adds to it in q."""
    with jax.enable_x64(True):
        factor = jnp.array([[0.0, 5.0], [3.0, 1.0], [0.0, 0.5], [1.0, 0.0]])
        one = jnp.ones(4)
        q = gj.Gaussian(jnp.zeros(4), gj.LowRank(one, factor))
        for scale in (one.at[0].set(2.0), one.at[1].set(1.5), one.at[2].set(2.0), 2 * one):
            p = gj.Gaussian(one, gj.LowRank(scale, 0.7 * factor))
            dense = [gj.from_covariance(g.mean, gj.covariance(g)) for g in (p, q)]
            got, expected = (gj.renyi_divergence(*pair, order=2) for pair in ((p, q), dense))
            np.testing.assert_allclose(got, expected, rtol=1e-9)
