"""Diagonal plus low rank: as exact as a dense root by QR, and a law where it is singular."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracle
import pytest
from compiling import quick_jit

import gaussjax as gj
from gaussjax.linalg.orthonormal import orthonormal_rows
from gaussjax.linalg.roots import triangular_root

D = 6
LAWS = {  # distance between the two columns of W, scales
    "independent columns": (1.0, [1.0] * D),
    "independent columns, little noise": (1.0, [1e-6] * D),
    "nearly dependent columns": (1e-3, [1e-3] * D),
    "nearly dependent columns, little noise": (1e-3, [1e-4] * D),
    "nearly dependent columns, less noise": (1e-2, [1e-6] * D),
    "one column twice": (0.0, [1e-5] * D),
    "columns apart by rounding": (1e-7, [1e-7] * D),
    "unequal noise": (1.0, [1e-6, 1.0, 1e-3, 1e-5, 1.0, 1e-2]),
    "unequal noise, nearly dependent columns": (1e-4, [1.0, 1e-6, 1e-5, 1e-1, 1e-6, 1e-3]),
}


def law(kind, dtype, units=1.0):
    """Scale, factor and a point that the law may have drawn."""
    rng = np.random.default_rng(sorted(LAWS).index(kind))
    apart, scale = LAWS[kind]
    w = rng.normal(size=(D, 1))
    factor = np.concatenate([w, w * (1 + apart * rng.normal(size=(D, 1)))], axis=1)
    scale = np.array(scale) * rng.uniform(0.5, 2.0, D)
    x = factor @ rng.normal(size=2) + scale * rng.normal(size=D)
    return tuple((units * a.T).T.astype(dtype) for a in (scale, factor, x))


def exact_covariance(scale, factor):
    w = oracle.matrix(factor)
    return oracle.covariance("diagonal", scale) + w * w.T


def condition(scale, factor):
    """Of the stack of diag(s) and Wᵀ with columns of unit length."""
    rows = np.concatenate([np.diag(scale), factor], axis=1, dtype=float)
    values = np.linalg.svd(rows / np.linalg.norm(rows, axis=1)[:, None], compute_uv=False)
    return values[0] / values[-1]


def gaussian(scale, factor):
    return gj.Gaussian(jnp.zeros(scale.shape, scale.dtype), gj.LowRank(scale, factor))


def everything(scale, factor, x):
    g = gaussian(scale, factor)
    root = triangular_root(jnp.concatenate([jnp.diag(1.1 * scale), factor], axis=1))
    dense = gj.Gaussian(g.mean, gj.Cholesky(root))
    return {
        "log_prob": gj.log_prob(g, x),
        "mahalanobis": gj.mahalanobis(g, x),
        "whitened length": jnp.sum(jnp.square(gj.whiten(g, x))),
        "logdet": gj.logdet(g),
        "solve": gj.solve(g, x),
        "there and back": gj.whiten(g, gj.color(g, jnp.ones(D, scale.dtype))),
        "kl": gj.kl_divergence(gaussian(1.1 * scale, factor), g),
        "trace": gj.trace_solve(dense.cov, g.cov),
        "gradient": jax.grad(lambda w: gj.log_prob(gaussian(scale, w), x))(factor),
    }


def exact_everything(scale, factor, x):
    sigma = exact_covariance(scale, factor)
    inverse = sigma**-1
    solution = inverse * oracle.matrix(x)
    quadratic = (oracle.matrix(x).T * solution)[0]
    logdet = mpmath.log(mpmath.det(sigma))
    # d log p = ½ tr((uuᵀ − Σ⁻¹) dΣ) with u = Σ⁻¹x and dΣ = dW Wᵀ + W dWᵀ
    gradient = (solution * solution.T - inverse) * oracle.matrix(factor)
    wider = exact_covariance((np.asarray(1.1, scale.dtype) * scale), factor)
    kl = oracle.kl(np.zeros(D), wider, np.zeros(D), sigma)
    product = inverse * wider
    return {
        "log_prob": -(quadratic + logdet + D * mpmath.log(2 * mpmath.pi)) / 2,
        "mahalanobis": quadratic,
        "whitened length": quadratic,
        "logdet": logdet,
        "solve": solution,
        "there and back": mpmath.ones(D, 1),
        "kl": kl,
        "trace": sum(product[i, i] for i in range(D)),
        "gradient": gradient,
    }


@pytest.mark.parametrize("units", [1.0, 10.0 ** np.array([9, -9, 0, 3, -3, -6])], ids=["", "mixed"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_densities_are_as_exact_as_from_a_dense_root(dtype, units):
    """I + VᵀV squares the condition number: it gave NaN, or −303 in place of 54."""
    with jax.enable_x64(dtype is np.float64):
        laws = [law(kind, dtype, units) for kind in LAWS]
        batch = [jnp.stack(leaves) for leaves in zip(*laws, strict=True)]
        results = jax.jit(jax.vmap(everything))(*batch)
    for i, (scale, factor, x) in enumerate(laws):
        bound = 8 * D * np.finfo(dtype).eps / 2 * condition(scale, factor)
        for name, exact in exact_everything(scale, factor, x).items():
            exact = np.array(exact.tolist() if hasattr(exact, "tolist") else exact, float)
            got = np.asarray(results[name][i], float).reshape(exact.shape)
            size = np.sqrt(scale.astype(float) ** 2 + np.sum(factor.astype(float) ** 2, axis=1))
            by = size.reshape(-1, *[1] * (exact.ndim - 1)) if name in ("solve", "gradient") else 1
            error = np.linalg.norm(by * (got - exact)) / np.linalg.norm(by * exact)
            assert error <= bound, (list(LAWS)[i], name, error, bound)


def test_one_column_twice_at_the_rounding_of_float64():
    with jax.enable_x64(True):
        w = np.random.default_rng(0).normal(size=(D, 1))
        scale, factor = np.full(D, 1e-8), np.concatenate([w, w], axis=1)
        value = gj.logdet(gj.LowRank(jnp.asarray(scale), jnp.asarray(factor)))
        exact = 2 * 5 * np.log(1e-8) + np.log(1e-16 + 2 * np.sum(w**2))
        np.testing.assert_allclose(value, exact, rtol=1e-8)


def test_conditionals_keep_their_digits_where_columns_are_nearly_dependent():
    scale, factor, x = law("nearly dependent columns, little noise", np.float32)
    g, given = gaussian(jnp.asarray(scale), jnp.asarray(factor)), [0, 2, 3, 5]
    sigma = np.array(exact_covariance(scale, factor).tolist(), float)
    known, cross = sigma[np.ix_(given, given)], sigma[np.ix_([1, 4], given)]
    gain = np.linalg.solve(known, cross.T).T
    law_of_rest = jax.jit(lambda g, x: gj.condition(g, given, x))(g, x[np.array(given)])
    bound = 8 * D * 2.0**-24 * condition(scale, factor)
    for got, exact in (
        (law_of_rest.mean, gain @ x[given].astype(float)),
        (gj.covariance(law_of_rest), sigma[np.ix_([1, 4], [1, 4])] - gain @ cross.T),
    ):
        assert np.linalg.norm(got - exact) <= bound * np.linalg.norm(exact)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 3), (3, 20), (20, 40)])
def test_orthonormal_rows_and_their_derivatives_of_any_order(shape):
    """Against F = L Q by Cholesky, with the derivatives of JAX alone."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        factor, change, weights = rng.normal(size=(3, 2, *shape))

        def by_cholesky(f):
            lower = jnp.linalg.cholesky(f @ f.T)
            return lower, jax.scipy.linalg.solve_triangular(lower, f, lower=True)

        def program(function, f, df, w):
            def second(f):
                return jax.jvp(function, (f,), (df,))[1]

            def total(f):
                return jnp.sum(w * jnp.tanh(second(f)[1])) + jnp.sum(jnp.sin(function(f)[0]))

            return function(f), second(f), jax.jvp(second, (f,), (w,))[1], jax.grad(total)(f)

        both = [
            quick_jit(jax.vmap(lambda *a, f=f: program(f, *a)))(factor, change, weights)
            for f in (orthonormal_rows, by_cholesky)
        ]
        for got, expected in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


def test_hessians_are_those_of_the_dense_form():
    with jax.enable_x64(True):
        scale, factor, x = law("unequal noise", np.float64)
        scale, x = np.sqrt(scale), jnp.asarray(x)

        def thin(scale, factor):
            return gj.log_prob(gaussian(scale, factor), x)

        def dense(scale, factor):
            sigma = jnp.diag(scale**2) + factor @ factor.T
            return jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(D), sigma)

        for order in (
            lambda f: jax.hessian(f, (0, 1)),
            lambda f: jax.jacrev(jax.jacrev(f, (0, 1)), (0, 1)),
        ):
            got, expected = (quick_jit(order(f))(scale, factor) for f in (thin, dense))
            for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6 * np.max(np.abs(b)))


def test_divergences_are_of_each_device_in_a_shard_map():
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jax.sharding.PartitionSpec("batch")
    scale, factor = jnp.ones((2, 3)), jnp.ones((2, 3, 1))

    def kl(scale, factor):
        return gj.kl_divergence(gaussian(scale, factor), gaussian(2 * scale, factor))

    sharded = jax.shard_map(kl, mesh=mesh, in_specs=(batch, batch), out_specs=batch)
    np.testing.assert_allclose(quick_jit(sharded)(scale, factor), kl(scale, factor), rtol=1e-6)


# Singular laws -----------------------------------------------------------------------------------

ZERO = jnp.zeros(2)
PROPER = gj.from_covariance(ZERO, jnp.eye(2))
THIN = gj.from_low_rank(ZERO, ZERO, jnp.array([[0.15], [0.3]]))
SINGULAR = {
    "more zeros than columns": ([0.0, 1.0, 0.0, 0.0, 2.0], [[1.0], [2.0], [-1.0], [3.0], [0.5]]),
    "no noise": ([0.0] * 5, [[1.0, 0.0], [2.0, 1.0], [-1.0, 3.0], [3.0, 1.0], [0.5, 1.0]]),
    "dependent rows": ([0.0, 0.0, 1.0, 1.0], [[1.0, 2.0], [2.7, 5.4], [0.0, 1.0], [1.0, 0.0]]),
    "an empty row": ([0.0, 1.0, 1.0], [[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]]),
    "no columns": ([0.0, 1.0], np.zeros((2, 0))),
    "more columns than rows": ([0.0, 0.0], [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]),
}


def test_sums_images_and_posteriors_of_singular_laws():
    """They are most process noises: constant velocity has Q = G q Gᵀ."""
    eye, y, sum_of = jnp.eye(2), jnp.array([1.0, 2.0]), jnp.array([[1.0, 1.0]])

    def program(p, q):
        return (
            gj.covariance(gj.convolve(p, q)),
            gj.covariance(gj.affine(q, sum_of)),
            gj.observe(q, eye, p, y).posterior.mean,
            gj.observe(p, eye, q, y).posterior.mean,
            gj.product(p, q).gaussian.mean,
            gj.covariance(gj.joint(q, eye, p)),
            gj.covariance(gj.joint(p, eye, q)),
        )

    sigma = np.array([[0.0225, 0.045], [0.045, 0.09]])
    one, total = np.eye(2), np.eye(2) + sigma
    mean = np.array([0.101124, 0.202247])
    expected = (
        total,
        [[0.2025]],
        mean,
        np.array([1.0, 2.0]) - mean,
        [0.0, 0.0],
        np.block([[sigma, sigma], [sigma, total]]),
        np.block([[one, one], [one, total]]),
    )
    batch = gj.stack([THIN, THIN])
    for many, q in ((False, THIN), (True, batch)):
        for got, right in zip(jax.jit(program)(PROPER, q), expected, strict=True):
            np.testing.assert_allclose(got[1] if many else got, right, atol=1e-5)


@pytest.mark.parametrize("kind", SINGULAR)
def test_a_singular_law_has_a_root_and_no_inverse(kind):
    scale, factor = (jnp.asarray(x, jnp.float32) for x in SINGULAR[kind])
    sigma = np.diag(np.square(scale)) + np.asarray(factor) @ np.asarray(factor).T
    d = len(scale)

    def program(scale, factor):
        g = gaussian(scale, factor)
        x = jnp.ones(d)
        color = jax.vmap(lambda e: gj.color(g, e), out_axes=1)(jnp.eye(d))
        draw = jax.vmap(g.cov.draw, out_axes=1)(jnp.eye(g.cov.noise_dim))
        exact = color @ color.T, draw @ draw.T, gj.covariance(g), jnp.diag(gj.variance(g))
        halves = gj.covariance(gj.scale_by(gj.shift(g, x), 0.5)), gj.covariance(gj.marginal(g, [0]))
        none = [gj.whiten(g, x), gj.solve(g, x), gj.precision(g), gj.mahalanobis(g, x)]
        none += [gj.log_prob(g, x), g.cov.precision_diagonal()]
        none += [gj.kl_divergence(gj.standard(d), g), gj.trace_solve(gj.Circulant(x), g.cov)]
        return exact, halves, (gj.logdet(g), gj.entropy(g)), none

    regular = jnp.ones_like(scale)  # a neighbour in the batch
    exact, halves, infinite, none = quick_jit(jax.vmap(program))(
        jnp.stack([scale, regular]), jnp.stack([factor, factor])
    )
    for got in exact[:3]:
        np.testing.assert_allclose(got[0], sigma, atol=2e-6 * np.max(sigma))
    np.testing.assert_allclose(jnp.diagonal(exact[3][0]), np.diag(sigma), rtol=1e-6)
    np.testing.assert_allclose(halves[0][0], sigma / 4, atol=1e-6 * np.max(sigma))
    np.testing.assert_allclose(halves[1][0], sigma[:1, :1], rtol=1e-6)
    assert all(x[0] == -np.inf and np.isfinite(x[1]) for x in infinite)
    for x in none:
        assert not np.any(np.isfinite(x[0]))
        assert np.all(np.isfinite(x[1]))


def test_a_regular_part_of_a_singular_law_conditions_the_rest():
    """The other coordinates without noise are then known."""
    scale, factor = (np.array(x, np.float32) for x in SINGULAR["more zeros than columns"])
    given = [0, 1, 4]  # one of the coordinates without noise
    sigma = np.diag(scale.astype(float) ** 2) + factor.astype(float) @ factor.T
    gain = np.linalg.solve(sigma[np.ix_(given, given)], sigma[np.ix_(given, [2, 3])]).T
    values = np.array([0.5, 1.0, -1.0], np.float32)
    rest = gj.condition(gaussian(jnp.asarray(scale), jnp.asarray(factor)), given, values)
    np.testing.assert_allclose(rest.mean, gain @ values, rtol=1e-5)
    np.testing.assert_allclose(gj.covariance(rest), 0, atol=1e-6)


def test_a_coordinate_without_noise_is_observed_as_it_is():
    prior = gaussian(jnp.array([0.0, 1.0]), jnp.array([[1.0], [2.0]]))
    for cov in (gj.Diagonal(jnp.array([1e-30, 1.0])), gj.Diagonal(jnp.array([0.0, 1.0]))):
        posterior = gj.product(prior, gj.Gaussian(jnp.array([3.0, 1.0]), cov)).gaussian
        np.testing.assert_allclose(posterior.mean, [3.0, 3.5], rtol=1e-6)
        np.testing.assert_allclose(gj.covariance(posterior), np.diag([0.0, 0.5]), atol=1e-6)


@pytest.mark.parametrize("bad", ["negative", "infinite", "NaN", "infinite factor", "NaN factor"])
def test_an_invalid_law_is_nan_in_its_element_alone(bad):
    value = {"negative": -1.0, "infinite": jnp.inf}.get(bad.split()[0], jnp.nan)
    scale, factor = jnp.ones((2, 3)), jnp.ones((2, 3, 1))
    if "factor" in bad:
        factor = factor.at[0, 1].set(value)
    else:
        scale = scale.at[0, 1].set(value)

    def program(scale, factor):
        g, x = gaussian(scale, factor), jnp.ones(3)
        several = [gj.whiten(g, x), gj.solve(g, x), gj.color(g, x), g.cov.precision_diagonal()]
        several += [gj.log_prob(g, x), gj.entropy(g), gj.mahalanobis(g, x), gj.score(g, x)]
        several += [gj.kl_divergence(g, gj.standard(3)), gj.kl_divergence(gj.standard(3), g)]
        row = [gj.sample(jax.random.key(0), g), gj.variance(g), gj.matvec(g, x)]
        row += [jnp.diagonal(gj.covariance(g)), gj.stddev(gj.convolve(g, gj.standard(3)))]
        return several, row

    several, row = quick_jit(jax.vmap(program))(scale, factor)
    assert all(np.all(np.isnan(x[0])) for x in several)
    assert all(np.isnan(x[0, 1]) for x in row)
    assert all(np.all(np.isfinite(x[1])) for x in (*several, *row))
