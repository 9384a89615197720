"""Moments of data in parts, and maximum likelihood of every structure, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from compiling import quick_jit
from processes import on_eight_devices

import gaussjax as gj

RNG = np.random.default_rng(0)
ROOT = RNG.standard_normal((6, 6))
X = (RNG.standard_normal((200, 6)) @ ROOT.T + 3).astype(np.float32)
OPTIONS = {
    gj.Isotropic: {},
    gj.Diagonal: {},
    gj.Cholesky: {},
    gj.LowRank: {"rank": 2},
    gj.BlockDiagonal: {"sizes": (2, 4)},
    gj.BandedPrecision: {"bandwidth": 2},
    gj.Circulant: {},
    gj.Kronecker: {"sizes": (2, 3)},
    gj.Toeplitz: {},
}
ALL = pytest.mark.parametrize("structure", OPTIONS, ids=lambda s: s.__name__)


def scatter(x, weights=None):
    """Mean and covariance in float64."""
    x = np.asarray(x, np.float64)
    return x.mean(0), np.cov(x.T, bias=True, aweights=weights).reshape(x.shape[1], -1)


def test_a_hundred_million_rows_in_parts_have_the_covariance_to_1e_5():
    """Mean 10⁴, sd 1, numbers that float32 has exactly, so that the exact sums are known."""
    rng = np.random.default_rng(1)
    z = np.round(rng.standard_normal((10_000, 2)) @ [[1, 0.5], [0, 0.5]] * 1024) / 1024
    shifts = np.round(rng.standard_normal((10_000, 2)) * 100) / 1024
    chunk = jnp.asarray(z + 1e4, jnp.float32)

    @jax.jit
    def run(shifts):
        def step(total, shift):
            return gj.merge_moments(total, gj.moments(chunk + shift[None])), None

        empty = gj.moments(jnp.zeros((0, 2)))
        return jax.lax.scan(step, empty, shifts)[0]

    m = run(jnp.asarray(shifts, jnp.float32))
    expected = scatter(z)[1] + scatter(shifts)[1]
    root = np.asarray(m.root, np.float64)
    assert m.weight == 1e8
    np.testing.assert_allclose(root @ root.T / 1e8, expected, rtol=1e-6)
    mean = np.asarray(m.mean, np.float64) + np.asarray(m.low[1:, 0])
    np.testing.assert_allclose(mean - 1e4, z.mean(0) + shifts.mean(0), atol=1e-5)
    np.testing.assert_allclose(gj.covariance(gj.fit(m)), expected, rtol=1e-6)


def test_merging_is_associative_and_as_of_all_rows_at_once():
    parts = [gj.moments(x, fourth=True) for x in np.split(X + 1e3, [10, 12, 120])]
    a, b, c, d = parts
    whole = gj.moments(X + 1e3, fourth=True)
    left = gj.merge_moments(gj.merge_moments(gj.merge_moments(a, b), c), d)
    right = gj.merge_moments(a, gj.merge_moments(b, gj.merge_moments(c, d)))
    for m in (left, right):
        for field in ("weight", "mean", "root", "radial"):
            got, expected = getattr(m, field), getattr(whole, field)
            size = float(jnp.max(jnp.abs(expected)))
            np.testing.assert_allclose(got, expected, atol=2e-6 * size, err_msg=field)


def test_no_rows_are_the_neutral_element():
    empty, m = gj.moments(X[:0], fourth=True), gj.moments(X, fourth=True)
    for both in (gj.merge_moments(empty, m), gj.merge_moments(m, empty)):
        for got, expected in zip(jax.tree.leaves(both), jax.tree.leaves(m), strict=True):
            np.testing.assert_allclose(got, expected, atol=2e-5)
    assert gj.merge_moments(empty, empty).weight == 0


@pytest.mark.parametrize(("n", "columns"), [(2_500, 128), (2_600, 0)], ids=["native", "plain"])
def test_many_rows_are_read_in_parts_with_weights_and_a_mask(monkeypatch, n, columns):
    from gaussjax.linalg import moments as module

    monkeypatch.setattr(module, "ROWS", 90)
    monkeypatch.setattr(module.limits, "COLUMNS", columns)
    rng = np.random.default_rng(2)
    x, weights = np.tile(X, (13, 1))[:n] + 1e3, rng.uniform(0, 2, n).astype(np.float32)
    mask = rng.uniform(size=n) < 0.8
    x[~mask] = np.nan
    m = jax.jit(lambda *a: gj.moments(a[0], weights=a[1], mask=a[2]))(x, weights, mask)
    _, expected = scatter(x[mask], weights[mask])
    np.testing.assert_allclose(m.root @ m.root.T / m.weight, expected, rtol=3e-5, atol=1e-5)
    np.testing.assert_allclose(m.weight, weights[mask].sum(), rtol=1e-6)
    bad = gj.moments(x, weights=weights.copy() * np.where(np.arange(n) == 7, -1, 1), mask=None)
    assert all(np.isnan(v).all() for v in (bad.weight, bad.mean, np.diagonal(bad.root)))


def test_an_integer_weight_is_that_many_equal_rows():
    weights = np.random.default_rng(3).integers(0, 4, len(X))
    for structure in (gj.Diagonal, gj.Cholesky):
        options = OPTIONS[structure]
        one = gj.fit(X, structure=structure, weights=weights, **options)
        other = gj.fit(np.repeat(X, weights, axis=0), structure=structure, **options)
        np.testing.assert_allclose(gj.covariance(one), gj.covariance(other), rtol=1e-4, atol=1e-4)


EIGHT = """
import jax, numpy as np, gaussjax as gj
from jax.sharding import NamedSharding, PartitionSpec
rows = NamedSharding(jax.make_mesh((8,), ("rows",)), PartitionSpec("rows"))
x = np.random.default_rng(0).standard_normal((96, 3)).astype(np.float32)
merge = jax.jit(jax.shard_map(
    lambda x: gj.merge_moments_over(gj.moments(x), "rows"),
    mesh=rows.mesh, in_specs=rows.spec, out_specs=PartitionSpec(),
))
program = merge.lower(jax.device_put(x, rows)).compile()
m, whole = program(jax.device_put(x, rows)), gj.moments(x)
np.testing.assert_allclose(m.root, whole.root, rtol=1e-5, atol=1e-5)
np.testing.assert_allclose(m.mean, whole.mean, rtol=1e-5, atol=1e-6)
text = program.as_text()
print(text.count(" all-reduce("), text.count(" all-gather("), text.count(" collective-permute("))
"""


def test_eight_devices_merge_their_moments_by_one_sum():
    assert on_eight_devices("-c", EIGHT, timeout=200).split() == ["1", "0", "0"]


# Maximum likelihood ------------------------------------------------------------------------------


def mean_log_prob(matrix, s):
    """E log p under the scatter S of N(μ, Σ), without constants."""
    return -0.5 * (np.linalg.slogdet(matrix)[1] + np.trace(np.linalg.solve(matrix, s)))


@ALL
def test_no_neighbour_of_the_estimate_has_a_larger_likelihood(structure):
    """In every direction that the structure has: the derivative of the likelihood is zero."""
    g = gj.fit(X, structure=structure, **OPTIONS[structure])
    assert isinstance(g.cov, structure)
    mean, s = scatter(X)
    np.testing.assert_allclose(g.mean, mean, rtol=1e-6)
    flat, back = jax.flatten_util.ravel_pytree(g.cov)

    def loss(flat):
        cov = back(flat)
        if structure is gj.LowRank:  # the noise is one number
            cov = gj.LowRank(jnp.full_like(cov.scale, jnp.mean(cov.scale)), cov.factor)
        return 0.5 * (cov.logdet() + gj.trace_solve(target.cov, cov))

    target = gj.from_covariance(mean.astype(np.float32), s.astype(np.float32))
    slope = quick_jit(jax.grad(loss))(flat)
    np.testing.assert_allclose(slope * jnp.maximum(jnp.abs(flat), 0.1), 0.0, atol=2e-4)


@ALL
def test_moments_say_all_that_a_fit_needs(structure):
    from_data = gj.fit(X, structure=structure, **OPTIONS[structure])
    from_moments = gj.fit(gj.moments(X), structure=structure, **OPTIONS[structure])
    np.testing.assert_allclose(
        gj.covariance(from_moments), gj.covariance(from_data), rtol=1e-4, atol=1e-4
    )


@ALL
def test_a_batch_is_fitted_alone_each_and_a_bad_one_is_nan(structure):
    x = np.stack([X, X * 2, np.where(np.arange(200)[:, None] == 5, np.nan, X)])

    def batch(x):
        return gj.fit(x, structure=structure, **OPTIONS[structure])

    g = quick_jit(batch)(x)
    alone = gj.fit(X * 2, structure=structure, **OPTIONS[structure])
    got = gj.covariance(g)
    np.testing.assert_allclose(got[1], gj.covariance(alone), rtol=1e-5, atol=1e-4)
    assert np.isnan(got[2]).all()
    with pytest.raises(ValueError, match=r"finite at batch index \(2,\)"):
        batch(x)


def test_full_structures_agree_with_numpy_and_nearly_dependent_columns_keep_their_digits():
    s = scatter(X)[1]
    np.testing.assert_allclose(gj.covariance(gj.fit(X)), s, rtol=1e-5, atol=1e-5)
    chain = gj.fit(X, structure=gj.BandedPrecision, bandwidth=5)
    np.testing.assert_allclose(gj.covariance(chain), s, rtol=1e-4, atol=1e-4)
    close = np.array(X)
    close[:, 1] = close[:, 0] + 1e-3 * close[:, 1]
    exact = np.linalg.slogdet(scatter(close)[1])[1]
    np.testing.assert_allclose(gj.logdet(gj.fit(close)), exact, rtol=1e-3)


def test_low_rank_is_the_ppca_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    n = len(X)
    theirs = decomposition.PCA(2).fit(X.astype(np.float64)).get_covariance() * (n - 1) / n
    ours = gj.covariance(gj.fit(X, structure=gj.LowRank, rank=2))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    wide = X[:5]  # fewer rows than columns
    ours = gj.covariance(gj.fit(wide, structure=gj.LowRank, rank=2))
    # scikit-learn takes the noise of the columns that n rows can show, not of all d
    values, vectors = np.linalg.eigh(scatter(wide)[1])
    noise = values[:-2].mean()
    theirs = noise * np.eye(6) + (vectors[:, -2:] * (values[-2:] - noise)) @ vectors[:, -2:].T
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_of_a_fit_are_those_of_the_closed_form():
    def loss(x):
        return gj.logdet(gj.fit(x))

    inverse = np.linalg.inv(scatter(X)[1])
    expected = 2 * (X - X.mean(0)) @ inverse / len(X)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), expected, rtol=1e-2, atol=1e-5)


LOOPS = {
    "Kronecker": lambda x: gj.fit(x, structure=gj.Kronecker, sizes=(2, 2)),
    "Toeplitz": lambda x: gj.fit(x, structure=gj.Toeplitz),
    "student_t": gj.student_t.fit,
    "student_t of given degrees": lambda x: gj.student_t.fit(x, degrees=4.0),
    "fit_missing": lambda x: gj.fit_missing(x, mask=np.arange(240).reshape(60, 4) % 7 > 0, most=1),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_derivatives_of_a_loop_are_those_of_where_it_ends(loop):
    rng = np.random.default_rng(5)
    x = (rng.standard_t(4, (60, 4)) @ (np.eye(4) + 0.5)).astype(np.float32)
    direction = rng.standard_normal(x.shape).astype(np.float32)

    def loss(x):
        leaves = jax.tree.leaves(LOOPS[loop](x))
        return sum(jnp.sum(v * jnp.cos(jnp.arange(float(v.size))).reshape(v.shape)) for v in leaves)

    value, slope = quick_jit(loss), quick_jit(jax.grad(loss))(x)
    step = np.float32(0.01)
    expected = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, direction), expected, rtol=2e-2)


def test_a_loop_that_does_not_come_to_rest_has_no_derivative():
    mask = np.arange(240).reshape(60, 4) % 7 > 0

    def loss(x):
        return gj.fit_missing(x, mask=mask, most=1, steps=2).mean[0]

    value, slope = jax.jvp(loss, (X[:60, :4],), (np.ones((60, 4), np.float32),))
    assert np.isfinite(value)
    assert np.isnan(slope)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: gj.fit(X[:4]), ValueError, "at least 7 rows for Cholesky of dimension 6"),
        (
            lambda: gj.fit(X[:3, :4], structure=gj.Kronecker, sizes=(2, 2)),
            ValueError,
            "at least 4 rows for Kronecker of dimension 4",
        ),
        (
            lambda: jax.grad(lambda x: gj.logdet(gj.factor_analysis(x, rank=2)))(jnp.array(X)),
            TypeError,
            "factor_analysis has no derivatives",
        ),
        (lambda: gj.fit(X[0]), ValueError, "data must have at least 2 axes"),
        (lambda: gj.fit(X, rank=2), TypeError, "Cholesky has no use for rank"),
        (lambda: gj.fit(X, structure=gj.LowRank), TypeError, "LowRank needs rank"),
        (lambda: gj.fit(X, structure=gj.LowRank, rank=6), ValueError, "rank must be below"),
        (lambda: gj.fit(X, structure=gj.Sum), TypeError, "structure must be one of Isotropic"),
        (lambda: gj.fit(X, structure=gj.Kronecker, sizes=(2, 2)), ValueError, "multiply to"),
        (lambda: gj.fit(X, structure=gj.BlockDiagonal, sizes=(2, 2)), ValueError, "add up to"),
        (lambda: gj.fit(X, weights=np.ones(3)), ValueError, "weights must have 200 entries"),
        (lambda: gj.fit(X, mask=np.ones(3, bool)), ValueError, "mask must have 200 entries"),
        (lambda: gj.fit(X, weights=-np.ones(200)), ValueError, "weights must be finite and not"),
        (lambda: gj.fit(X, weights=np.zeros(200)), ValueError, "weights must not all be zero"),
        (lambda: gj.fit(X, mask=np.zeros(200, bool)), ValueError, "mask must name a row"),
        (lambda: gj.fit(gj.moments(X), weights=np.ones(200)), ValueError, "weights is for rows"),
        (lambda: gj.fit(np.where(X > 9, np.nan, X)), ValueError, "data must be finite: a mask"),
    ],
)
def test_what_is_wrong_is_said(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


@ALL
@pytest.mark.parametrize("kind", ["constant", "dependent", "few"])
def test_no_structure_makes_a_finite_covariance_of_what_does_not_vary(structure, kind):
    x = np.array(X)
    if kind == "constant":
        x[:, 0] = 0.1
    elif kind == "dependent":
        x[:, 0] = x[:, 1]
    weights = np.where(np.arange(200) < (1 if kind == "few" else 200), 1.0, 0.0)
    regular = {
        gj.Isotropic,
        gj.LowRank,
        gj.Circulant,
        gj.Toeplitz,
    }  # have no use for a variance of each
    if kind == "dependent":
        regular |= {gj.Diagonal, gj.Kronecker}
    if kind != "few" and structure in regular:
        return

    def fitted(x):
        return gj.fit(x, structure=structure, weights=weights, **OPTIONS[structure])

    with pytest.raises(ValueError, match="must vary in every direction"):
        fitted(x)
    leaves = jax.tree.leaves(quick_jit(fitted)(x).cov)
    assert any(np.isnan(v).any() for v in leaves)


WEIGHTED = {
    "fit": gj.fit,
    "factor_analysis": lambda x, **w: gj.factor_analysis(x, rank=2, **w),
    "ledoit_wolf": gj.ledoit_wolf,
    "oas": gj.oas,
    "constant_correlation": gj.constant_correlation,
    "nonlinear_shrinkage": gj.nonlinear_shrinkage,
    "student_t": lambda x, **w: gj.student_t.fit(x, degrees=3.0, **w),
    "em_step": lambda x, **w: gj.em_step(gj.standard(6), x, mask=np.full(X.shape, True), **w),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_no_rows_have_no_mean_either(name):
    g = quick_jit(lambda w: WEIGHTED[name](X, weights=w))(np.zeros(200, np.float32))
    assert all(np.isnan(v).any() for v in jax.tree.leaves(g) if v.ndim)


def test_rows_of_no_weight_are_no_rows_to_two_factors_nor_to_factor_analysis():
    """Of three rows two factors of size three fit many pairs equally well."""
    x = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float32)
    few = np.where(np.arange(20) < 3, 1.0, 0.0)
    for data, weights in ((x, few), (gj.moments(x[:3]), None)):
        with pytest.raises(ValueError, match="too few rows"):
            gj.fit(data, structure=gj.Kronecker, sizes=(3, 3), weights=weights)
    with pytest.raises(ValueError, match="too few rows"):
        gj.factor_analysis(x[:, :4], rank=2, weights=few)


def test_factor_analysis_is_a_stationary_point_no_worse_than_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 6)) + rng.standard_normal((300, 6))
    x = (x * [1, 2, 0.5, 1, 3, 1]).astype(np.float32)
    g = gj.factor_analysis(x, rank=2)
    theirs = decomposition.FactorAnalysis(2, tol=1e-7, max_iter=20_000, svd_method="lapack").fit(x)
    assert gj.log_prob(g, x).mean() > theirs.score(x) - 1e-5

    def loss(cov):
        return -jnp.mean(gj.log_prob(gj.Gaussian(g.mean, cov), x))

    slope = quick_jit(jax.grad(loss))(g.cov)
    np.testing.assert_allclose(slope.scale * g.cov.scale, 0.0, atol=2e-4)
    np.testing.assert_allclose(slope.factor * g.cov.scale[:, None], 0.0, atol=2e-4)
    same = gj.factor_analysis(gj.moments(x), rank=2)
    np.testing.assert_allclose(gj.covariance(same), gj.covariance(g), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="must vary in every direction for factor_analysis"):
        gj.factor_analysis(x * [0, 1, 1, 1, 1, 1], rank=2)
    with pytest.raises(ValueError, match="rank must be below the dimension 6"):
        gj.factor_analysis(x, rank=6)


def test_kronecker_is_the_optimum_that_scipy_finds():
    _, s = scatter(X)

    def loss(v):
        a, b = np.zeros((2, 2)), np.zeros((3, 3))
        a[np.tril_indices(2)], b[np.tril_indices(3)] = v[:3], v[3:]
        return -mean_log_prob(np.kron(a @ a.T, b @ b.T), s)

    best = scipy.optimize.minimize(loss, [2, 0, 2, 1, 0, 1, 0, 0, 1], method="BFGS", tol=1e-10)
    ours = gj.fit(X, structure=gj.Kronecker, sizes=(2, 3))
    value = -mean_log_prob(np.asarray(gj.covariance(ours), np.float64), s)
    np.testing.assert_allclose(value, best.fun, rtol=1e-6)
