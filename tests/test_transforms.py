"""Gaussian in, Gaussian out: every function, with every structure, against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES
from compiling import quick_jit

import gaussjax as gj

D = 6
KEY = jax.random.key(0)


def make(kind, seed=0):
    """A Gaussian, and its mean and covariance in float64."""
    rng = np.random.default_rng(seed)
    cov, sigma = STRUCTURES[kind](rng, D, np.float32)
    mean = rng.normal(size=D).astype(np.float32)
    return gj.Gaussian(jnp.asarray(mean), cov), mean.astype(float), sigma


def close(got, expected, rtol=2e-4):
    expected = np.asarray(expected)
    size = np.max(np.abs(expected), initial=0.0)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * size)


def conditional(mean, sigma, kept, given, values):
    gain = sigma[np.ix_(kept, given)] @ np.linalg.inv(sigma[np.ix_(given, given)])
    shifted = mean[kept] + gain @ (values - mean[given])
    return shifted, sigma[np.ix_(kept, kept)] - gain @ sigma[np.ix_(given, kept)]


def log_density(x, mean, sigma):
    v = x - mean
    logdet = np.linalg.slogdet(2 * np.pi * sigma)[1]
    return -0.5 * (v @ np.linalg.solve(sigma, v) + logdet)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_maps_move_mean_and_covariance_as_they_should(kind):
    g, mean, sigma = make(kind)
    rng = np.random.default_rng(1)
    matrix, offset, factor = rng.normal(size=(2, D)), rng.normal(size=2), rng.normal(size=D)

    def program(g):
        return gj.affine(g, matrix, offset=offset), gj.shift(g, factor), gj.scale_by(g, -3.0)

    affine, shifted, scaled = jax.jit(program)(g)
    close(gj.mean(affine), matrix @ mean + offset)
    close(gj.covariance(affine), matrix @ sigma @ matrix.T)
    close(gj.mean(shifted), mean + factor)
    close(gj.mean(scaled), -3 * mean)
    close(jax.jit(gj.covariance)(scaled), 9 * sigma)
    assert shifted.cov is not None
    wise = jax.jit(gj.scale_by)(g, factor)
    close(jax.jit(gj.covariance)(wise), sigma * np.outer(factor, factor))
    close(gj.variance(wise), np.diag(sigma) * factor**2)


INDICES = {"segment": [2, 3, 4], "even steps": [1, 3, 5], "negative": [-1, 0]}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_marginals_and_conditionals_are_the_dense_ones(kind):
    g, mean, sigma = make(kind)
    x = np.linspace(-1, 1, D).astype(np.float32)

    def program(g, x):
        static = {
            name: (gj.marginal(g, i), gj.condition(g, i, x[np.array(i)]))
            for name, i in INDICES.items()
        }
        out = {
            n: (m.mean, gj.covariance(m), c.mean, gj.covariance(c)) for n, (m, c) in static.items()
        }
        traced = jnp.array([4, 1])
        m, c = gj.marginal(g, traced), gj.condition(g, traced, x[traced])
        return out | {"traced": (m.mean, gj.covariance(m), c.mean, gj.covariance(c))}

    for name, (m, m_cov, c, c_cov) in jax.jit(program)(g, x).items():
        given = np.array(INDICES.get(name, [4, 1])) % D
        kept = np.setdiff1d(np.arange(D), given)
        close(m, mean[given])
        close(m_cov, sigma[np.ix_(given, given)])
        expected, covariance = conditional(mean, sigma, kept, given, x[given])
        close(c, expected)
        close(c_cov, covariance)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_mask_conditions_like_indices_and_scores_what_is_observed(kind):
    g, mean, sigma = make(kind)
    x = np.linspace(-1, 1, D).astype(np.float32)
    masks = np.array([[1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], bool)
    holes = np.where(masks, x, np.nan).astype(np.float32)

    def program(g, holes, masks):
        law = gj.condition_where(g, holes, mask=masks)
        draws = gj.impute(KEY, g, holes, mask=masks, shape=(4,))
        gradient = jax.grad(lambda g: jnp.sum(gj.log_prob_observed(g, holes, mask=masks)))(g)
        value = gj.log_prob_observed(g, holes, mask=masks)
        return law.mean, gj.variance(law), value, draws, gradient

    means, variances, values, draws, gradient = jax.jit(program)(g, holes, masks)
    for row, mask in enumerate(masks):
        given, kept = np.flatnonzero(mask), np.flatnonzero(~mask)
        expected, covariance = conditional(mean, sigma, kept, given, x[given])
        np.testing.assert_array_equal(means[row][given], x[given])
        np.testing.assert_array_equal(variances[row][given], 0)
        close(means[row][kept], expected)
        close(variances[row][kept], np.diag(covariance))
        observed = log_density(x[given], mean[given], sigma[np.ix_(given, given)])
        np.testing.assert_allclose(
            values[row], observed if len(given) else 0.0, rtol=2e-4, atol=1e-5
        )
        np.testing.assert_array_equal(draws[:, row][:, given], np.tile(x[given], (4, 1)))
    assert draws.shape == (4, 3, D)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", STRUCTURES)
def test_observing_agrees_with_the_dense_joint(kind):
    prior, mean, sigma = make(kind)
    rng = np.random.default_rng(2)
    matrix, y = rng.normal(size=(2, D)), rng.normal(size=2)
    noise = gj.from_covariance([0.1, -0.2], [[0.5, 0.1], [0.1, 0.3]])
    r = np.array([[0.5, 0.1], [0.1, 0.3]])

    def program(prior, y):
        both = gj.joint(prior, matrix, noise)
        posterior, evidence = gj.observe(prior, matrix, noise, y)
        return both.mean, gj.covariance(both), posterior.mean, gj.covariance(posterior), evidence

    m, c, post_m, post_c, evidence = jax.jit(program)(prior, y)
    cross = matrix @ sigma
    total = cross @ matrix.T + r
    center = matrix @ mean + [0.1, -0.2]
    close(m, np.concatenate([mean, center]))
    close(c, np.block([[sigma, cross.T], [cross, total]]))
    gain = cross.T @ np.linalg.inv(total)
    close(post_m, mean + gain @ (y - center))
    close(post_c, sigma - gain @ cross)
    close(evidence, log_density(y, center, total))


@pytest.mark.parametrize("kind", STRUCTURES)
def test_batches_of_transforms_are_loops_of_them(kind):
    g, _, _ = make(kind)
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf]), g)
    values = jnp.array([[1.0, 2.0], [0.5, -1.0]])

    def program(g, v):
        law = gj.condition(g, [1, 4], v)
        posterior = gj.product(g, gj.standard(D))
        return law.mean, gj.variance(law), posterior.gaussian.mean, posterior.log_normalizer

    native, mapped = quick_jit(lambda g, v: (program(g, v), jax.vmap(program)(g, v)))(pair, values)
    for row in range(2):
        alone = quick_jit(program)(gj.take(pair, row), values[row])
        for one, a, b in zip(alone, native, mapped, strict=True):
            np.testing.assert_allclose(a[row], one, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b[row], one, rtol=1e-4, atol=1e-5)


def kind_of(program, *gs):
    """Structure of the Gaussian that a program gives."""
    return type(jax.eval_shape(program, *gs).cov)


def test_structure_is_kept_where_the_mathematics_keeps_it():
    of = {kind: make(kind)[0] for kind in STRUCTURES}
    own = {kind: type(g.cov) for kind, g in of.items()}
    for kind in ("isotropic", "diagonal", "low_rank", "block_diagonal"):
        assert kind_of(lambda g: gj.marginal(g, [0, 4]), of[kind]) is own[kind]
    assert kind_of(lambda g: gj.marginal(g, [1, 3, 5]), of["toeplitz"]) is gj.Toeplitz
    segment = kind_of(lambda g: gj.marginal(g, [2, 3, 4]), of["banded_precision"])
    assert segment is gj.BandedPrecision
    for kind in ("low_rank", "block_diagonal", "precision", "banded_precision"):
        law = kind_of(lambda g: gj.condition(g, [0, 4], [0.0, 0.0]), of[kind])
        assert law is own[kind]
    stacked, blocks = of["stacked_blocks"], of["block_diagonal"]
    size = stacked.cov.blocks.dim
    firsts = np.arange(0, D, size)
    assert kind_of(lambda g: gj.marginal(g, firsts), stacked) is gj.StackedBlocks
    assert kind_of(lambda g: gj.condition(g, firsts, firsts), stacked) is gj.StackedBlocks
    assert kind_of(lambda g: gj.condition(g, [4, 0], [0.0, 0.0]), blocks) is gj.BlockDiagonal
    for g in (stacked, blocks):  # of dense blocks
        assert kind_of(lambda g: gj.product(g, g).gaussian, g) is type(g.cov)
    noise = gj.from_scale(jnp.zeros(D), 2.0)
    for kind in ("diagonal", "low_rank", "circulant", "banded_precision"):
        assert kind_of(lambda g, q: gj.product(g, q).gaussian, of[kind], noise) is own[kind]
    for kind in ("isotropic", "diagonal", "low_rank", "circulant", "toeplitz"):
        assert kind_of(gj.convolve, of[kind], noise) is own[kind]
    for kind, g in of.items():
        assert kind_of(lambda g: gj.scale_by(g, 2.0), g) is own[kind]
    assert kind_of(lambda g: gj.scale_by(g, jnp.ones(D)), of["kronecker"]) is gj.Scaled
    assert kind_of(gj.convolve, of["kronecker"], of["toeplitz"]) is gj.Sum


def test_an_improper_prior_has_a_proper_posterior():
    # a flat prior on the sum of two coordinates, made proper by observing both
    prior = gj.Gaussian(jnp.zeros(2), gj.PrecisionCholesky(jnp.array([[1.0, 0.0], [-1.0, 0.0]])))
    noise = gj.from_scale([0.0, 0.0], 1.0)
    posterior, evidence = gj.observe(prior, jnp.eye(2), noise, [1.0, 3.0])
    close(gj.precision(posterior), [[2.0, -1.0], [-1.0, 2.0]])
    close(posterior.mean, np.linalg.solve([[2.0, -1.0], [-1.0, 2.0]], [1.0, 3.0]))
    assert evidence == -np.inf  # as of a prior that is ever wider
    for kind in ("diagonal", "cholesky", "low_rank", "toeplitz"):  # a proper partner of any kind
        other = gj.Gaussian(
            jnp.array([1.0, 3.0]), STRUCTURES[kind](np.random.default_rng(0), 2, np.float32)[0]
        )
        sharper = np.array([[1.0, -1.0], [-1.0, 1.0]]) + gj.precision(other)
        mean = np.linalg.solve(sharper, gj.precision(other) @ np.asarray(other.mean))
        for law in (gj.product(prior, other).gaussian, gj.product(other, prior).gaussian):
            close(gj.precision(law), sharper, 1e-4)
            close(law.mean, mean, 1e-4)
    law = gj.condition_where(prior, [0.0, 3.0], mask=[False, True])
    close(law.mean, [3.0, 3.0])
    close(gj.variance(law), [1.0, 0.0])


def test_a_product_of_a_precise_and_a_vague_density_keeps_its_digits():
    # Σ − KSKᵀ in float32 would leave nothing of the smaller variance
    vague = gj.from_cholesky([0.0, 0.0], 1e4 * np.array([[1.0, 0.0], [0.5, 1.0]]))
    precise = gj.from_cholesky([1.0, 2.0], 1e-3 * np.array([[1.0, 0.0], [0.5, 1.0]]))
    law = gj.product(vague, precise).gaussian
    close(gj.covariance(law), gj.covariance(precise), 1e-5)
    close(law.mean, [1.0, 2.0], 1e-5)


@pytest.mark.parametrize("d", [2, 7, 16, 20])
def test_a_batch_of_dense_conditionals_is_exact_in_any_units(d):
    rng = np.random.default_rng(d)
    units = 2.0 ** rng.integers(-80, 80, d)
    lower = np.tril(rng.normal(size=(150, d, d)), -1) + np.diag(np.exp(rng.normal(size=d)))
    lower, x = lower.astype(np.float32), rng.normal(size=(150, d)).astype(np.float32)
    halves = np.arange(d // 2), np.arange(d // 2, d)[::-1]
    given = [np.arange(0, d, 2), np.arange(1, d, 2), *halves]

    @jax.jit
    def laws(lower, x):
        g = gj.Gaussian(jnp.zeros(d), gj.Cholesky(lower))
        return [gj.condition(g, i, x[:, i]) for i in given]

    own = laws(lower, x)
    scaled = laws((lower * units[:, None]).astype(np.float32), (x * units).astype(np.float32))
    for i, law, other in zip(given, own, scaled, strict=True):
        kept = np.setdiff1d(np.arange(d), i)
        sigma = lower[1].astype(float) @ lower[1].T
        mean, cov = conditional(np.zeros(d), sigma, kept, i, x[1, i])
        close(law.mean[1], mean)
        close(gj.covariance(law)[1], cov)
        close(np.asarray(other.mean) / units[kept], law.mean)
        close(np.asarray(other.cov.lower) / units[kept, None], law.cov.lower)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("d", [3, 8, 20])
def test_triangular_roots_neither_overflow_nor_underflow(scale, d):
    lower = (np.tril(np.ones((d, d))) + np.eye(d)).astype(np.float32)
    g, unit = (gj.Gaussian(jnp.zeros(d), gj.Cholesky(jnp.asarray(lower * s))) for s in (scale, 1))
    noise, unit_noise = (
        gj.Gaussian(jnp.zeros(d), gj.Isotropic(s, d)) for s in (jnp.float32(scale), 1.0)
    )
    for got, expected in (
        (gj.marginal(g, range(d)[::-1]), gj.marginal(unit, range(d)[::-1])),
        (gj.condition(g, [0], jnp.full(1, scale)), gj.condition(unit, [0], jnp.ones(1))),
        (gj.convolve(g, g), gj.convolve(unit, unit)),
        (
            gj.observe(g, np.eye(d), noise, jnp.full(d, scale)).posterior,
            gj.observe(unit, np.eye(d), unit_noise, jnp.ones(d)).posterior,
        ),
    ):
        close(got.mean / scale, expected.mean)
        close(got.cov.lower / scale, expected.cov.lower)
        close(gj.stddev(got) / scale, gj.stddev(expected))
    close(gj.stddev(noise) / scale, np.ones(d))


@pytest.mark.parametrize(("d", "m"), [(3, 3), (4, 2)])
def test_a_precise_observation_has_the_same_posterior_when_differentiated(d, m):
    rng = np.random.default_rng(d)
    lower = 1e4 * (0.3 * np.tril(rng.normal(size=(d, d)), -1) + np.eye(d)).astype(np.float32)
    matrix = rng.normal(size=(m, d)).astype(np.float32)
    noise = gj.Gaussian(jnp.zeros(m), gj.Diagonal(jnp.full(m, 1e-4)))

    def scales(lower):
        prior = gj.Gaussian(jnp.zeros(d), gj.Cholesky(lower))
        return gj.stddev(gj.observe(prior, matrix, noise, jnp.zeros(m)).posterior)

    value, (primal, _) = scales(lower), jax.jvp(scales, (lower,), (lower,))
    np.testing.assert_allclose(primal, value, rtol=1e-5)
    # Σ⁻¹ = L⁻ᵀL⁻¹ + HᵀH/σ² by QR of the root in float64
    wide = np.linalg.inv(lower.astype(float)).T, matrix.T / 1e-4
    triangle = np.linalg.qr(np.concatenate(wide, axis=1).T, mode="r")
    expected = np.sqrt(np.sum(np.linalg.inv(triangle) ** 2, axis=1))
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_conditioning_on_nothing_and_on_everything_is_defined():
    g, mean, sigma = make("cholesky")
    close(gj.covariance(gj.condition(g, [], jnp.zeros(0))), sigma)
    assert gj.condition(g, range(D), mean).dim == 0


def test_a_traced_index_out_of_range_or_repeated_is_nan():
    g, _, _ = make("cholesky")

    def program(indices):
        return gj.condition(g, indices, jnp.zeros(2)), gj.marginal(g, indices)

    of = jax.jit(program)
    for bad in ([0, 6], [1, 1], [-7, 0]):
        assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(of(jnp.array(bad))))
    for ends, start in (([-1, 0], [5, 0]), ([2, -3], [2, 3])):
        for a, b in zip(*map(jax.tree.leaves, map(of, map(jnp.array, (ends, start)))), strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_infinite_observation_has_no_density():
    x = jnp.array([jnp.inf, *np.zeros(D - 1)])
    for kind in ("cholesky", "banded_precision"):
        g, _, _ = make(kind)
        assert gj.log_prob_observed(g, x, mask=jnp.ones(D, bool)) == -jnp.inf
        assert np.isfinite(gj.log_prob_observed(g, x, mask=x == 0))


def test_a_traced_index_may_stand_in_a_list_and_be_of_any_integer_type():
    g, _, _ = make("cholesky")
    close(jax.jit(lambda i: gj.marginal(g, [i]).mean)(1), g.mean[1:2])
    close(gj.marginal(gj.standard(300), jnp.array([1], jnp.int8)).mean, [0.0])


def test_a_stack_keeps_batches_that_are_not_on_every_leaf():
    g, h = (
        gj.Gaussian(jnp.zeros((3, 2)), gj.Diagonal(jnp.array(s))) for s in ([1.0, 2.0], [5.0, 7.0])
    )
    pile = gj.stack([g, h])
    assert gj.batch_shape(pile) == (2, 3)
    for i, each in enumerate((g, h)):
        np.testing.assert_array_equal(gj.stddev(gj.take(pile, i)), gj.stddev(each))


def test_taking_counts_from_the_end_and_is_nan_out_of_range_under_jit():
    g = gj.from_scale([[0.0], [5.0]], [[1.0], [2.0]])
    assert gj.take(g, -1).mean == 5.0
    np.testing.assert_array_equal(gj.take(g, slice(1, 2)).mean, [[5.0]])
    np.testing.assert_array_equal(gj.take(g, [1, 0]).mean, [[5.0], [0.0]])
    law = jax.jit(gj.take)(g, 2)
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(law))


def test_gaussians_side_by_side_stacked_and_taken():
    g, mean, sigma = make("diagonal")
    h, other, _ = make("toeplitz")
    both = gj.concatenate([g, h])
    close(both.mean, np.concatenate([mean, other]))
    close(gj.variance(both)[:D], np.diag(sigma))
    pile = gj.stack([g, g])
    assert gj.batch_shape(pile) == (2,)
    np.testing.assert_array_equal(gj.take(pile, 1).mean, g.mean)


ERRORS = {
    "indices must be below the dimension 6": lambda g: gj.marginal(g, [6]),
    "indices must not repeat": lambda g: gj.condition(g, [1, 1], [0.0, 0.0]),
    "indices must be a sequence of integers": lambda g: gj.marginal(g, [0.5]),
    "values must have 2 entries": lambda g: gj.condition(g, [0, 1], [0.0]),
    "matrix must have 6 entries along its last axis": lambda g: gj.affine(g, np.ones((2, 5))),
    "factor must have 6 entries": lambda g: gj.scale_by(g, np.ones(5)),
    "q must have dimension 6 like p": lambda g: gj.product(g, gj.standard(5)),
    "mask must be an array of booleans": lambda g: gj.log_prob_observed(
        g, np.ones(D), mask=np.ones(D)
    ),
    "matrix must have 2 rows": lambda g: gj.observe(g, np.ones((3, D)), gj.standard(2), [0.0, 0.0]),
    "y must have 2 entries": lambda g: gj.observe(g, np.ones((2, D)), gj.standard(2), [0.0]),
    "gs must have equal structures": lambda g: gj.stack([g, gj.standard(D)]),
    "index must have at most one item for each batch axis": lambda g: gj.take(g, 0),
    "index must be below the batch size 2": lambda g: gj.take(gj.stack([g, g]), 2),
    "g must be a Gaussian, got int": lambda g: gj.marginal(3, [0]),
    "factors of Kronecker must hold structures, got list": lambda g: gj.entropy(
        gj.Gaussian(jnp.zeros(4), gj.Kronecker([g.cov, g.cov]))
    ),
    "blocks of BlockDiagonal must hold at least one": lambda g: gj.entropy(
        gj.Gaussian(jnp.zeros(0), gj.BlockDiagonal(()))
    ),
    "factor of LowRank must have size 3": lambda g: gj.entropy(
        gj.Gaussian(jnp.zeros(3), gj.LowRank(jnp.ones(3), jnp.ones((2, 1))))
    ),
    "scale of Scaled must have size 6": lambda g: gj.entropy(
        gj.Gaussian(g.mean, gj.Scaled(g.cov, jnp.ones(1)))
    ),
    "second of Sum must have size 6": lambda g: gj.variance(
        gj.Gaussian(g.mean, gj.Sum(g.cov, gj.standard(1).cov))
    ),
    "scale of Diagonal must have at least 1 axes": lambda g: gj.entropy(
        gj.Gaussian(jnp.zeros(3), gj.StackedBlocks(gj.Diagonal(jnp.ones(3))))
    ),
    "concatenate needs a sequence": lambda g: gj.concatenate([]),
    "mean must have 6 entries .* covs of sizes": lambda g: gj.from_kronecker(
        np.zeros(5), [gj.standard(2).cov, gj.standard(3).cov]
    ),
    "mean must have 5 entries .* blocks of sizes": lambda g: gj.from_block_diagonal(
        np.zeros(4), [gj.standard(2).cov, gj.standard(3).cov]
    ),
    "factor must have 2 rows": lambda g: gj.from_low_rank([0.0, 0.0], [1.0, 1.0], np.ones((3, 1))),
    "variance must be finite and not negative": lambda g: gj.from_low_rank([0.0], [-1.0], [[1.0]]),
    "column must mirror itself": lambda g: gj.from_circulant(np.zeros(4), [2.0, 1.0, 0.0, 0.5]),
    "column must have a positive Fourier": lambda g: gj.from_circulant([0.0, 0.0], [1.0, 2.0]),
    "diagonals must be those of a positive": lambda g: gj.from_banded_precision(
        [0.0, 0.0], [[1.0, 1.0], [2.0, 0.0]]
    ),
}


@pytest.mark.parametrize("sentence", ERRORS)
def test_wrong_arguments_get_a_sentence(sentence):
    g, _, _ = make("cholesky")
    with pytest.raises((ValueError, TypeError), match=sentence):
        ERRORS[sentence](g)


def test_a_toeplitz_column_that_is_not_positive_definite_is_nan_and_leaves_its_neighbour_alone():
    g = gj.from_toeplitz(jnp.zeros(3), [[1.0, 2.0, 0.0], [2.0, 1.0, 0.5]])
    values, draws = jax.jit(lambda g: (gj.log_prob(g, jnp.ones(3)), gj.sample(KEY, g)))(g)
    assert np.isnan(values[0])
    close(values[1], jax.jit(gj.log_prob)(gj.take(g, 1), jnp.ones(3)))
    assert np.all(np.isnan(draws[0]))
    assert np.all(np.isfinite(draws[1]))
