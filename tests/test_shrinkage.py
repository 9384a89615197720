"""Shrunk covariances against scikit-learn, the papers' formulas in float64, and 60 digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit
from oracle import mpmath  # of 60 digits

import gaussjax as gj

SHAPES = pytest.mark.parametrize("shape", [(20, 40), (3, 2), (30, 1)], ids=str)
KINDS = {
    "ledoit_wolf": (gj.ledoit_wolf, gj.ledoit_wolf_shrinkage),
    "oas": (gj.oas, gj.oas_shrinkage),
    "constant_correlation": (gj.constant_correlation, gj.constant_correlation_shrinkage),
    "nonlinear": (gj.nonlinear_shrinkage, gj.shrunk_eigenvalues),
}
ALL = pytest.mark.parametrize("kind", KINDS)


def data(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3).astype(np.float32)


@SHAPES
@pytest.mark.parametrize(("kind", "name"), [("ledoit_wolf", "LedoitWolf"), ("oas", "OAS")])
def test_shares_and_covariances_are_scikit_learns(kind, name, shape):
    covariance = pytest.importorskip("sklearn.covariance")
    x = data(*shape)
    theirs = getattr(covariance, name)().fit(x.astype(np.float64))
    estimate, share = KINDS[kind]
    np.testing.assert_allclose(share(x), theirs.shrinkage_, rtol=3e-6)
    size = np.abs(theirs.covariance_).max()
    np.testing.assert_allclose(gj.covariance(estimate(x)), theirs.covariance_, atol=2e-6 * size)


def test_streamed_moments_are_shrunk_like_the_whole():
    x = data(200, 6)
    parts = [gj.moments(part, fourth=True) for part in np.split(x, [5, 70])]
    m = gj.merge_moments(gj.merge_moments(parts[0], parts[1]), parts[2])
    np.testing.assert_allclose(gj.ledoit_wolf_shrinkage(m), gj.ledoit_wolf_shrinkage(x), rtol=1e-5)
    for estimate in (gj.ledoit_wolf, gj.oas, gj.nonlinear_shrinkage):
        np.testing.assert_allclose(
            gj.covariance(estimate(m)), gj.covariance(estimate(x)), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(ValueError, match="fourth=True"):
        gj.ledoit_wolf(gj.moments(x))


@pytest.mark.parametrize("kind", ["ledoit_wolf", "constant_correlation"])
def test_an_integer_weight_is_that_many_equal_rows(kind):
    x, weights = data(60, 4), np.random.default_rng(1).integers(0, 3, 60)
    for function in KINDS[kind]:
        one, other = function(x, weights=weights), function(np.repeat(x, weights, axis=0))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@ALL
def test_units_do_not_matter_even_where_fourth_powers_leave_the_range(kind):
    x, (estimate, share) = data(60, 4), KINDS[kind]
    size = np.float32(2.0**40)
    expected, scale = share(x), size**2 if kind == "nonlinear" else 1.0
    for factor in (size, 1 / size):
        np.testing.assert_allclose(
            share(x * factor), expected * (scale if factor == size else 1 / scale), rtol=1e-5
        )
        lower = estimate(x * factor).cov.lower
        np.testing.assert_allclose(lower / factor, estimate(x).cov.lower, rtol=1e-5, atol=1e-5)


def constant_correlation_of_the_paper(x):
    """Ledoit & Wolf (2004), appendix B, term by term."""
    n, d = x.shape
    y = x - x.mean(0)
    s = y.T @ y / n
    sd = np.sqrt(np.diag(s))
    r = s / np.outer(sd, sd)
    mean_r = (r.sum() - d) / (d * (d - 1))
    target = mean_r * np.outer(sd, sd)
    np.fill_diagonal(target, np.diag(s))
    pi = np.array(
        [[np.mean((y[:, i] * y[:, j] - s[i, j]) ** 2) for j in range(d)] for i in range(d)]
    )
    rho = np.trace(pi)
    for i in range(d):
        for j in range(d):
            if i == j:
                continue
            about = y[:, i] * y[:, j] - s[i, j]
            first = np.mean((y[:, i] ** 2 - s[i, i]) * about)
            second = np.mean((y[:, j] ** 2 - s[j, j]) * about)
            rho += mean_r / 2 * (sd[j] / sd[i] * first + sd[i] / sd[j] * second)
    share = np.clip((pi.sum() - rho) / np.sum((target - s) ** 2) / n, 0, 1)
    return share, share * target + (1 - share) * s


@pytest.mark.parametrize("shape", [(100, 5), (8, 20)], ids=str)
def test_constant_correlation_is_that_of_the_paper(shape):
    x = data(*shape)
    share, matrix = constant_correlation_of_the_paper(x.astype(np.float64))
    assert 0.0 < share < 1.0
    np.testing.assert_allclose(gj.constant_correlation_shrinkage(x), share, rtol=1e-5)
    size = np.abs(matrix).max()
    np.testing.assert_allclose(gj.covariance(gj.constant_correlation(x)), matrix, atol=2e-6 * size)


def shrunk_by_the_paper(x):
    """Ledoit & Wolf (2020), appendix D, in 60 digits: float64 loses all where d is near n."""
    n, d = x.shape
    y = mpmath.matrix((x - x.mean(0)).tolist())
    n = n - 1
    values = list(mpmath.eigsy(y.T * y / n, eigvals_only=True))[max(0, d - n) :]
    h, root, pi, m = mpmath.mpf(n) ** (-mpmath.mpf(1) / 3), mpmath.sqrt(5), mpmath.pi, len(values)

    def tail(z):
        return -3 * z / 10 / pi + 3 / (4 * root * pi) * (1 - z**2 / 5) * mpmath.log(
            abs((root - z) / (root + z))
        )

    out = []
    for v in values:
        zs = [(v - w) / (h * w) for w in values]
        f = (
            sum(
                3 / (4 * root) * max(1 - z**2 / 5, 0) / (h * w)
                for z, w in zip(zs, values, strict=True)
            )
            / m
        )
        g = sum(tail(z) / (h * w) for z, w in zip(zs, values, strict=True)) / m
        c = mpmath.mpf(d) / n
        if d <= n:
            out.append(v / ((pi * c * v * f) ** 2 + (1 - c - pi * c * v * g) ** 2))
        else:
            out.append(v / ((pi * v * f) ** 2 + (pi * v * g) ** 2))
    if d > n:
        log = mpmath.log((1 + root * h) / (1 - root * h))
        null = 3 / (10 * h**2) + 3 / (4 * root * h) * (1 - 1 / (5 * h**2)) * log
        null = null / pi * sum(1 / v for v in values) / m
        out = [1 / (pi * (mpmath.mpf(d) / n - 1) * null)] * (d - n) + out
    return np.array([float(v) for v in out[::-1]])


@pytest.mark.parametrize("shape", [(60, 6), (16, 20), (22, 20)], ids=str)
def test_nonlinear_eigenvalues_are_those_of_the_paper(shape):
    x = data(*shape)
    expected = shrunk_by_the_paper(x.astype(np.float64))
    np.testing.assert_allclose(gj.shrunk_eigenvalues(x), expected, rtol=2e-3)
    found = np.linalg.eigvalsh(np.asarray(gj.covariance(gj.nonlinear_shrinkage(x)), np.float64))
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=2e-3, atol=1e-4)


@ALL
def test_a_batch_is_shrunk_alone_each_and_a_bad_one_is_nan(kind):
    x = data(60, 4)
    bad = np.where(np.arange(60)[:, None] == 5, np.inf, x)
    estimate, share = KINDS[kind]
    g = quick_jit(estimate)(np.stack([x, bad]))
    np.testing.assert_allclose(g.cov.lower[0], estimate(x).cov.lower, rtol=1e-5, atol=1e-5)
    assert np.isnan(g.cov.lower[1][np.tril_indices(4)]).all()
    assert np.isnan(share(bad)).any()
    with pytest.raises(ValueError, match=r"data must be finite at batch index \(1,\)"):
        estimate(np.stack([x, bad]))


@pytest.mark.parametrize("kind", ["ledoit_wolf", "constant_correlation"])
@pytest.mark.parametrize("seed", range(4))
def test_where_nothing_is_shrunk_a_singular_sample_has_no_estimate(kind, seed):
    """Two rows: the data say that nothing is to be shrunk. Dependent columns of many rows too."""
    few = data(2, 5, seed)
    many = np.random.default_rng(seed).standard_normal((5000, 3)).astype(np.float32)
    many[:, 2] = many[:, 0] - many[:, 1]
    estimate, share = KINDS[kind]
    for x in (few, many):
        if share(x) < 1e-6:
            with pytest.raises(ValueError, match="must vary in every direction"):
                estimate(x)
        else:
            assert np.linalg.eigvalsh(np.asarray(gj.covariance(estimate(x)), float)).min() > 0


def test_weights_that_do_not_count_rows_have_no_nonlinear_shrinkage():
    """200 rows that are worth 14 vary in more directions than 14 rows can."""
    x = data(200, 30)
    with pytest.raises(ValueError, match="must vary in every direction"):
        gj.nonlinear_shrinkage(x, weights=np.full(200, 0.07, np.float32))


@ALL
def test_equal_rows_or_one_row_have_no_estimate(kind):
    x, (estimate, share) = data(60, 4), KINDS[kind]
    with pytest.raises(ValueError, match="must have at least"):
        estimate(x[:1])
    equal = np.tile(x[:1], (60, 1))
    with pytest.raises(ValueError, match="must vary in every direction"):
        estimate(equal)
    assert not np.isfinite(share(equal)).any()
    few = np.where(np.arange(60) < 1, 1.0, 0.0)
    assert np.isnan(quick_jit(lambda x: estimate(x, weights=few))(x).cov.lower).any()


@pytest.mark.parametrize("kind", ["ledoit_wolf", "oas", "constant_correlation"])
def test_gradients_are_finite_where_the_share_is_cut_off(kind):
    x = jnp.stack([data(6, 3, seed) for seed in range(8)])  # among them shares of one
    assert kind == "constant_correlation" or (KINDS[kind][1](x) == 1.0).any()
    slope = quick_jit(jax.grad(lambda x: jnp.sum(gj.logdet(KINDS[kind][0](x)))))(x)
    assert np.isfinite(slope).all()
