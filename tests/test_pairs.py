"""Every ordered pair of structures: against dense linear algebra, near and far, and never d × d."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DENSE, STRUCTURES
from compiling import eagerly, quick_jit
from test_transformations import equations

import gaussjax as gj

PAIRS = list(itertools.product(STRUCTURES, STRUCTURES))


def of_a_pair(p, q):
    return {
        "kl": gj.kl_divergence(p, q),
        "trace": gj.trace_solve(p.cov, q.cov),
    }


def sum_of(p, q):
    return {"sum": gj.covariance(gj.convolve(p, q))}


def made_of_kl(p, q):
    return {
        "cross_entropy": gj.cross_entropy(p, q),
        "logdet_divergence": gj.logdet_divergence(p.cov, q.cov),
    }


def dense_pair(mean, a, other_mean, b):
    d, v = len(a), other_mean - mean
    logdets = [np.linalg.slogdet(m)[1] for m in (a, b)]
    trace = np.trace(np.linalg.solve(b, a))
    divergence = trace - d - logdets[0] + logdets[1]
    kl = 0.5 * (divergence + v @ np.linalg.solve(b, v))
    return {
        "kl": kl,
        "cross_entropy": kl + 0.5 * (logdets[0] + d * np.log(2 * np.pi) + d),
        "logdet_divergence": divergence,
        "trace": trace,
        "sum": a + b,
    }


def make_pair(pair):
    rng = np.random.default_rng(3)
    (a, dense_a), (b, dense_b) = (STRUCTURES[kind](rng, 6, np.float64) for kind in pair)
    means = rng.normal(size=(2, 6))
    p, q = (gj.Gaussian(jnp.asarray(m), cov) for m, cov in zip(means, (a, b), strict=True))
    return p, q, (means[0], dense_a, means[1], dense_b)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair_agrees_with_dense_linear_algebra_in_float64(pair):
    check_pair(of_a_pair, pair)


@pytest.mark.parametrize(
    "pair", list(itertools.combinations_with_replacement(STRUCTURES, 2)), ids="-".join
)
def test_every_sum_agrees_with_dense_linear_algebra_in_float64(pair):
    check_pair(sum_of, pair)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_what_is_made_of_the_kl_agrees_too(kind):
    check_pair(made_of_kl, (kind, "diagonal"))


def check_pair(function, pair):
    with jax.enable_x64(True):
        p, q, dense = make_pair(pair)
        got, expected = eagerly(function)(p, q), dense_pair(*dense)
    for name, value in got.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, atol=1e-11, err_msg=name)


PRODUCTS = [(k, other) for k in STRUCTURES for other in dict.fromkeys([k, "diagonal", "cholesky"])]


@pytest.mark.parametrize("pair", PRODUCTS, ids="-".join)
def test_a_product_of_densities_is_the_dense_one(pair):
    with jax.enable_x64(True):
        p, q, (mean, a, other_mean, b) = make_pair(pair)
        law, log_normalizer = eagerly(gj.product)(p, q)
        covariance = eagerly(gj.covariance)(law)
    v, total = other_mean - mean, a + b
    gain = a @ np.linalg.inv(total)
    logdet = np.linalg.slogdet(2 * np.pi * total)[1]
    np.testing.assert_allclose(law.mean, mean + gain @ v, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(covariance, a - gain @ a, rtol=1e-10, atol=1e-11)
    expected = -0.5 * (v @ np.linalg.solve(total, v) + logdet)
    np.testing.assert_allclose(log_normalizer, expected, rtol=1e-10)


def largest(program, *arguments):
    """Elements of the largest array that a program computes."""
    jaxpr = jax.make_jaxpr(program)(*arguments).jaxpr
    return max(v.aval.size for e in equations(jaxpr) for v in e.outvars if hasattr(v.aval, "size"))


@functools.cache
def of_960_dimensions(kind):
    """A covariance of each structure; the catalogue makes its matrix too, which takes a while."""
    return STRUCTURES[kind](np.random.default_rng(0), 960, np.float32)[0]


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if not DENSE & set(pair)], ids="-".join)
def test_no_pair_makes_a_matrix_of_structures_that_are_none(pair):
    d = 960
    p, q = (gj.Gaussian(jnp.zeros(d, np.float32), of_960_dimensions(kind)) for kind in pair)
    key = jax.random.key(0)
    programs = {
        "kl": lambda p, q: gj.kl_divergence(p, q),
        "gradient": jax.value_and_grad(lambda p, q: gj.kl_divergence(p, q), (0, 1)),
        "trace_solve": lambda p, q: gj.trace_solve(p.cov, q.cov),
        "sum": lambda p, q: (gj.sample(key, gj.convolve(p, q)), gj.variance(gj.convolve(p, q))),
    }
    # Derivatives of divergences of Toeplitz matrices keep d filters, which is documented.
    del programs["gradient" if "toeplitz" in pair else "kl"]
    if pair[0] == pair[1]:
        programs["density"] = lambda p, q: gj.log_prob(p, q.mean) + gj.entropy(q)
    for name, program in programs.items():
        # the catalogue's blocks take d²/4; what is linear in d takes less than d²/7
        assert largest(program, p, q) <= d * d // 2, name


def test_small_dense_factors_make_no_large_arrays():
    """A derivative of L ε in place of Lᵀ v took 16 times the numbers of the result."""
    d, rng = 240, np.random.default_rng(0)
    a = gj.Kronecker(tuple(STRUCTURES["cholesky"](rng, n, np.float32)[0] for n in (15, 16)))
    p, q = (
        gj.Gaussian(jnp.zeros(d), c)
        for c in (a, STRUCTURES["banded_precision"](rng, d, np.float32)[0])
    )
    assert largest(gj.kl_divergence, p, q) <= 128 * d


def test_the_search_for_matrices_finds_one():
    assert largest(lambda x: jnp.sum(jnp.outer(x, x)), jnp.ones(240)) == 240**2


# A triangle that is found by QR is rounded, by more than a distance of 1e-4 leaves digits for.
NEAR = sorted(set(STRUCTURES) - {"isotropic", "kronecker_plus_diagonal", "root"})


@pytest.mark.parametrize("kind", NEAR)
@pytest.mark.parametrize("separation", [1e-2, 1e-4])
def test_kl_within_a_structure_is_exact_however_close(kind, separation):
    d = 6
    p = gj.Gaussian(jnp.zeros(d), STRUCTURES[kind](np.random.default_rng(1), d, np.float32)[0])
    q = nearby(p, separation)
    value = float(jax.jit(gj.kl_divergence)(p, q))
    with jax.enable_x64(True):
        a, b = (wide(g) for g in (p, q))
        exact = float(
            gj.kl_divergence(*(gj.from_covariance(g.mean, gj.covariance(g)) for g in (a, b)))
        )
    # the dense form in float64 errs by 1e-16 over the separation squared
    assert abs(value - exact) <= 2e-5 * exact


@pytest.mark.parametrize("kind", STRUCTURES)
def test_kl_to_itself_is_zero_with_a_zero_gradient(kind):
    d = 6
    p = gj.Gaussian(jnp.zeros(d), STRUCTURES[kind](np.random.default_rng(1), d, np.float32)[0])
    value, gradients = jax.jit(jax.value_and_grad(gj.kl_divergence, (0, 1)))(p, p)
    # two programs may round the root of one sum differently
    assert 0 <= value <= (1e-13 if kind == "kronecker_plus_diagonal" else 0)
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_allclose(leaf, 0, atol=2e-6)


def nearby(g, separation):
    """The same structure with every parameter moved by one part in 1/separation."""
    rng = np.random.default_rng(2)

    def moved(leaf):
        factor = 1 + separation * rng.uniform(-1, 1, np.shape(leaf))
        return jnp.asarray(np.asarray(leaf) * factor, np.float32)

    return gj.Gaussian(g.mean, jax.tree.map(moved, g.cov))


def wide(g):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), np.float64), g)


def spectral_kl(a, b):
    """KL of two dense covariances in float64, from the eigenvalues of B⁻¹A: no digit is lost."""
    t = np.linalg.eigvals(np.linalg.solve(b, a)).real - 1
    series = sum((-t) ** k / k for k in range(2, 9))
    return 0.5 * np.sum(np.where(np.abs(t) < 1e-2, series, t - np.log1p(t)))


def nearly_low_rank(d, separation):
    """A circulant and a low-rank covariance that are equal but for this share of their entries."""
    rng = np.random.default_rng(d)
    spectrum = np.full(d, 1.5)
    spectrum[0] += 2
    scale = np.sqrt(1.5) * (1 + separation * rng.uniform(-1, 1, d))
    p = gj.Circulant(jnp.asarray(spectrum * (1 + separation / 2), np.float32))
    q = gj.LowRank(jnp.asarray(scale, np.float32), jnp.full((d, 1), (2 / d) ** 0.5))
    return p, q


@pytest.mark.parametrize("separation", [1e-3, 3e-2, 0.3])
@pytest.mark.parametrize("d", [16, 17, 64, 65, 130])
def test_kl_of_close_unlike_structures_keeps_its_digits_at_every_size(d, separation):
    """It lost them beyond d = 16, where the formula changed by a threshold for speed."""
    a, b = nearly_low_rank(d, separation)
    with jax.enable_x64(True):
        x, y = (gj.covariance(wide(gj.Gaussian(jnp.zeros(d), c))) for c in (a, b))
    value = jax.jit(gj.logdet_divergence)(a, b)
    # entries of B⁻¹A − I are of the size of the separation and have an error of a few roundings
    np.testing.assert_allclose(value, 2 * spectral_kl(x, y), rtol=1e-5 + 5e-7 / separation)


def test_the_rule_by_columns_holds_in_batches_and_leaves_neighbours_of_a_nan_alone():
    pairs = [nearly_low_rank(70, s) for s in (1e-3, 0.3, 0.5)]
    a, b = (jax.tree.map(lambda *x: jnp.stack(x), *side) for side in zip(*pairs, strict=True))
    bad = gj.Circulant(a.spectrum.at[1].set(jnp.nan))
    both = quick_jit(jax.vmap(jax.value_and_grad(gj.logdet_divergence, (0, 1))))
    values, gradients = both(bad, b)
    assert jnp.isnan(values[1])
    for i in (0, 2):
        alone = quick_jit(jax.value_and_grad(gj.logdet_divergence, (0, 1)))(*pairs[i])
        np.testing.assert_allclose(values[i], alone[0], rtol=1e-3)
        for got, expected in zip(*map(jax.tree.leaves, (gradients, alone[1])), strict=True):
            size = np.max(np.abs(expected))
            np.testing.assert_allclose(got[i], expected, atol=1e-3 * size)


@pytest.mark.parametrize("kind", ["toeplitz", "circulant", "kronecker"])
def test_kl_of_scalings_of_one_structure_is_exact_and_zero_at_equality(kind):
    """What `scale_by` gives was compared by the textbook formula: 1.9e-6 for 4.1e-7."""
    d, rng = 20, np.random.default_rng(0)
    g = gj.Gaussian(jnp.zeros(d), STRUCTURES[kind](rng, d, np.float32)[0])
    factor, change = rng.uniform(0.5, 2.0, d), 1e-4 * rng.uniform(-1, 1, d)
    p = gj.scale_by(g, jnp.asarray(factor, np.float32))
    assert isinstance(p.cov, gj.Scaled)
    for base, rtol in ((0.0, 2e-6), (1e-4, 1e-3)):
        q = gj.scale_by(nearby(g, base), jnp.asarray(factor * (1 + change), np.float32))
        with jax.enable_x64(True):
            exact = spectral_kl(*(np.asarray(gj.covariance(wide(x))) for x in (p, q)))
        value = jax.jit(gj.kl_divergence)(p, q)
        np.testing.assert_allclose(value, exact, rtol=rtol, err_msg=f"{base}")
    value, gradients = jax.jit(jax.value_and_grad(gj.kl_divergence, (0, 1)))(p, p)
    assert value == 0
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_allclose(leaf, 0, atol=2e-6)


def test_kl_of_scalings_far_apart_is_the_dense_one():
    base = gj.Toeplitz(jnp.asarray(0.7 ** np.arange(5), np.float32))
    a = gj.Scaled(base, jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    b = gj.Scaled(base, jnp.array([-2.0, 1.0, 3.0, 1.0, 1e-2]))
    x, y = (np.asarray(c.dense(), float) for c in (a, b))
    np.testing.assert_allclose(gj.logdet_divergence(a, b), 2 * spectral_kl(x, y), rtol=1e-5)
    x = np.asarray(base.dense(), float)
    np.testing.assert_allclose(gj.logdet_divergence(base, b), 2 * spectral_kl(x, y), rtol=1e-5)
    x = np.diag(0.9 + np.zeros(5)) @ x @ np.diag(0.9 + np.zeros(5))
    near = gj.Scaled(base, jnp.full(5, 0.9))
    np.testing.assert_allclose(
        gj.logdet_divergence(near, base), 5 * (0.81 - 1 - np.log(0.81)), rtol=2e-6
    )
