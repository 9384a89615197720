"""Singular laws of every structure: distances on and off the support, and derivatives on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit

import gaussjax as gj

RNG = np.random.default_rng(0)


def some(*shape):
    return jnp.asarray(RNG.normal(size=shape).astype(np.float32))


def diagonal(*scale):
    return gj.Diagonal(jnp.array(scale))


LOWER = jnp.array([[1.0, 0.0], [0.3, 2.0]])
DROPPED = jnp.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.3, 0.0, 0.7]])
PRODUCT = gj.Kronecker((gj.Cholesky(LOWER), gj.Cholesky(DROPPED)))
REPEATED = jnp.array([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [0.5, 0.7]])
LAWS = {  # and their ranks
    "root": (gj.Root(some(4, 2)), 2),
    "wide root": (gj.Root(some(6, 3) @ some(3, 8)), 3),
    "cholesky": (gj.Cholesky(DROPPED), 2),
    "larger cholesky": (
        gj.Cholesky((jnp.tril(some(20, 20), -1) / 20 + jnp.eye(20)).at[:, 7].set(0.0)),
        19,
    ),
    "diagonal": (diagonal(1.0, 0.0, 2.0), 2),
    "low rank without scale": (gj.LowRank(jnp.zeros(4), some(4, 2)), 2),
    "low rank with a scale": (gj.LowRank(jnp.array([1.0, 0.0, 0.0, 0.0]), some(4, 2)), 3),
    "low rank, rows of zeros": (
        gj.LowRank(jnp.array([1.0, 0.0, 0.0]), jnp.array([[1.0], [0.0], [2.0]])), 2,
    ),
    "low rank, rows repeated": (gj.LowRank(jnp.zeros(4), REPEATED), 2),
    "low rank, two rows repeated": (gj.LowRank(jnp.array([1.0, 0.0, 0.0, 2.0]), REPEATED), 3),
    "low rank, some scales": (gj.LowRank(jnp.array([0.5, 0.0] * 6), some(12, 3)), 9),
    "kronecker": (PRODUCT, 4),
    "kronecker of three": (
        gj.Kronecker((diagonal(1.0, 0.0), gj.Root(some(3, 2)), gj.Cholesky(LOWER))),
        4,
    ),
    "kronecker plus nothing": (gj.add(PRODUCT, gj.Isotropic(jnp.array(0.0), 6)), 4),
    "circulant": (gj.Circulant(jnp.array([4.0, 0.0, 1.0, 1.0, 0.0])), 3),
    "circulant of two": (gj.Circulant(jnp.array([0.0, 1.0])), 1),
    "scaled": (gj.Scaled(gj.Toeplitz(jnp.array([1.0, 0.5, 0.2])), jnp.array([1.0, 0.0, 2.0])), 2),
    "scaled product": (gj.Scaled(PRODUCT, jnp.array([1.0, 2.0, 3.0, 1.0, 0.5, 2.0])), 4),
    "blocks": (
        gj.BlockDiagonal((gj.LowRank(jnp.zeros(3), some(3, 1)), diagonal(1.0, 0.0))),
        2,
    ),
    "stacked blocks": (gj.StackedBlocks(gj.LowRank(jnp.zeros((2, 3)), some(2, 3, 1))), 2),
}  # fmt: skip


# Whether a point is on their support is not looked at by densities: that would cost regular laws.
ONLY_ON_SUPPORT = {name for name in LAWS if name.startswith(("low rank", "scaled", "kronecker"))}
ONLY_ON_SUPPORT |= {"blocks", "stacked blocks"}  # of a low rank


def answers(g, on, off, along):
    """Everything asked of a singular law, and derivatives on its support."""
    rescaled = jax.grad(lambda t: gj.mahalanobis(gj.scale_by(g, t), on))(jnp.float32(1.0))
    moved = jax.jvp(lambda x: gj.mahalanobis(g, x), (on,), (along,))[1]
    return {
        "distances": gj.mahalanobis(g, jnp.stack([on, off])),
        "densities": gj.log_prob(g, jnp.stack([on, off])),
        "on the support": gj.log_prob_on_support(g, jnp.stack([on, off])),
        "volumes": (gj.logdet(g), gj.entropy(g)),
        "rank": gj.rank(g),
        "undefined": (gj.whiten(g, on), gj.score(g, on), jnp.diag(gj.precision(g))),
        "derivatives": (rescaled, moved),
    }  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_a_singular_law_has_distances_on_its_support_and_none_off_it(name):
    cov, rank = LAWS[name]
    d = cov.dim
    g = gj.Gaussian(jnp.zeros(d), cov)
    values, vectors = np.linalg.eigh(np.asarray(gj.covariance(g), np.float64))
    values, out, vectors = values[d - rank :], vectors[:, 0], vectors[:, d - rank :]
    rng = np.random.default_rng(d)
    x, along = (vectors @ (np.sqrt(values) * rng.normal(size=rank)) for _ in range(2))
    inside, moved = vectors.T @ x, vectors.T @ along
    distance = np.sum(inside**2 / values)
    density = -0.5 * (distance + np.sum(np.log(values)) + rank * np.log(2 * np.pi))
    on, off, along = (v.astype(np.float32) for v in (x, x + 0.3 * out, along))
    got = quick_jit(answers)(g, on, off, along)
    np.testing.assert_allclose(got["on the support"], [density, -np.inf], rtol=1e-4)
    np.testing.assert_array_equal(got["volumes"], [-np.inf, -np.inf])
    assert int(got["rank"]) == rank
    if name in ONLY_ON_SUPPORT:
        assert not np.isfinite([*got["distances"], *got["densities"]]).any()
        return
    np.testing.assert_allclose(got["distances"], [distance, np.inf], rtol=1e-4)
    np.testing.assert_array_equal(got["densities"], [np.inf, -np.inf])
    rescaled, change = got["derivatives"]
    np.testing.assert_allclose(rescaled, -2 * distance, rtol=1e-4)
    size = 2 * np.sum(np.abs(inside * moved) / values)
    np.testing.assert_allclose(change, 2 * np.sum(inside * moved / values), atol=1e-4 * size)
    assert all(np.isnan(x).all() for x in got["undefined"])


def test_the_support_of_low_rank_takes_no_array_of_d_by_d():
    d = 20_000
    factor = some(d, 2)
    g = gj.Gaussian(jnp.zeros(d), gj.LowRank(jnp.zeros(d), factor))
    on = factor @ jnp.array([1.0, -2.0])
    density = gj.log_prob_on_support(g, jnp.stack([on, on + 1]))
    volume = np.linalg.slogdet(np.asarray(factor.T @ factor, np.float64))[1]
    expected = -0.5 * (5 + volume + 2 * np.log(2 * np.pi))
    np.testing.assert_allclose(density, [expected, -np.inf], rtol=1e-4)
    assert gj.rank(g) == 2


def test_zero_is_all_that_makes_a_product_plus_a_diagonal_singular():
    scale = jnp.array([1.0, 1.0, 1e-8, 1e-8])
    product = gj.Kronecker((gj.Cholesky(jnp.diag(scale[1:3])), gj.Cholesky(jnp.eye(2))))
    g = gj.Gaussian(jnp.zeros(4), gj.add(product, gj.Isotropic(jnp.array(0.0), 4)))
    expected = gj.log_prob(gj.from_scale(jnp.zeros(4), scale), scale)
    np.testing.assert_allclose(gj.log_prob(g, scale), expected, rtol=1e-5)


def test_a_small_pivot_of_a_regular_sum_keeps_its_digits():
    d = 256
    places = np.minimum(np.arange(d), d - np.arange(d))
    spectrum = 20 * np.exp(-0.5 * (places / 6) ** 2)
    spectrum, scale = spectrum / spectrum.mean(), np.linspace(1e-5, 4e-5, d)
    cov = gj.Sum(*(
        make(jnp.asarray(x, np.float32))
        for make, x in ((gj.Circulant, spectrum), (gj.Diagonal, scale))
    ))  # fmt: skip
    column = np.fft.ifft(spectrum).real
    matrix = column[(np.arange(d)[:, None] - np.arange(d)) % d] + np.diag(scale**2)
    np.testing.assert_allclose(cov.logdet(), np.linalg.slogdet(matrix)[1], rtol=1e-4)


def test_ranks_of_products_are_those_of_their_densities():
    cov = gj.Kronecker((gj.Circulant(jnp.array([1.0, 1e-20, 1e-20])), diagonal(1.0)))
    g = gj.Gaussian(jnp.zeros(3), cov)
    assert int(gj.rank(g)) == int(cov.on_support(jnp.ones(3)).dim)
