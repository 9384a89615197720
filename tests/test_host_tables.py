"""The test cases that other libraries have for their own normals, as Gaussians and back.

Parameters, shapes and points are those of the tests of NumPyro, distrax, TFP and flowjax; what has
to come out is the host's own number, or numpy's in float64 where the host keeps none.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import gaussjax as gj

KEY = jax.random.key(0)
HALF = [[1.0, 0.5], [0.5, 1.0]]
TURN, NOISE = [[0.8, 0.2], [-0.1, 1.1]], [[0.8, 0.2], [0.2, 0.7]]
ROWS = [[1.0, 0, 0], [0.3, 0.36, 0], [0.4, 0.49, 4]]
RING = np.array([[0.0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]])


@pytest.fixture(autouse=True)
def promotion_as_the_libraries_expect():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def adapter(name, library=None):
    pytest.importorskip(library or name, reason=f"{name} is not installed on this lane")
    return importlib.import_module(f"gaussjax.adapters.{name}")


def close(got, expected, rtol=2e-4, atol=2e-5):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


# NumPyro -----------------------------------------------------------------------------------------

NUMPYRO = [
    ("Normal", 0.0, 1.0),
    ("Normal", 1.0, [1.0, 2.0]),
    ("Normal", [0.0, 1.0], [[1.0], [2.0]]),
    ("CirculantNormal", np.zeros((3, 4)), [0.9, 0.2, 0.1, 0.2]),
    ("CirculantNormal", np.zeros((7, 5)), [0.9, 0.2, 0.1, 0.1, 0.2]),
    ("CirculantNormal", np.zeros(4), np.broadcast_to([0.9, 0.2, 0.1, 0.2], (3, 4))),
    ("CirculantNormal", np.zeros(5), np.broadcast_to([0.9, 0.2, 0.1, 0.1, 0.2], (7, 5))),
    ("GaussianRandomWalk", 0.1, 10),
    ("GaussianRandomWalk", [0.1, 0.3, 0.25], 10),
    ("GaussianStateSpace", 10, TURN, NOISE),
    ("GaussianStateSpace", 5, TURN, np.multiply.outer([0.1, 0.3, 0.25], NOISE)),
    ("GaussianStateSpace", 5, TURN, None, None, 0.5 * np.eye(2), [1.0, 2.0]),
    ("GaussianStateSpace", 5, TURN, None, None, 0.5 * np.eye(2), [[1, 2.0], [0.5, 1.5], [-1, 0]]),
    ("GaussianStateSpace", 4, 0.9 * np.eye(2), None, None, 0.3 * np.eye(2), [[[1.0, 0]], [[0, 1]]]),
    ("MatrixNormal", np.arange(6.0).reshape(3, 2), ROWS, [[1.0, 0], [0.4, 1]]),
    (
        "MatrixNormal",
        np.arange(12.0).reshape(2, 3, 2),
        np.broadcast_to(ROWS, (2, 3, 3)),
        np.broadcast_to([[1.0, 0], [0.4, 0.5]], (2, 2, 2)),
    ),
    ("MatrixNormal", np.arange(36.0).reshape(2, 3, 3, 2), np.eye(3), np.eye(2)),
    ("MultivariateNormal", 0.0, HALF),
    ("MultivariateNormal", [1.0, 3.0], None, HALF),
    ("MultivariateNormal", [1.0, 3.0], None, [HALF]),
    ("MultivariateNormal", [2.0], None, None, [[1.0, 0.0], [0.5, 1.0]]),
    ("MultivariateNormal", np.arange(6.0).reshape(3, 2), None, None, np.eye(2)),
    ("MultivariateNormal", 0.0, None, np.broadcast_to(np.eye(3), (2, 3, 3))),
    ("CAR", 1.2, [-0.2, 0.3], 0.1, RING),
    ("CAR", [0.0, 1.0, 3.0, 4.0], 0.1, [0.3, 0.7], RING),
    ("sparse CAR", [[0.0, 1.0, 3.0, 4.0], [2.0, -1.0, -3.0, 2.0]], 0.0, 0.1, RING),
    ("LowRankMultivariateNormal", np.zeros(2), [[1.0], [0.0]], [1.0, 1.0]),
    (
        "LowRankMultivariateNormal",
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(3, 2),
        [1.0, 2.0, 3.0],
    ),
]


@pytest.mark.parametrize("case", NUMPYRO, ids=[f"{i} {case[0]}" for i, case in enumerate(NUMPYRO)])
def test_a_normal_of_numpyro_has_its_density_and_moments(case):
    module = adapter("numpyro")
    name, *given = case
    make = getattr(importlib.import_module("numpyro.distributions"), name.split()[-1])
    arrays = [np.asarray(x, float) if isinstance(x, list | np.ndarray) else x for x in given]
    d = make(*arrays, **({"is_sparse": True} if "sparse" in name else {}))
    g = module.from_numpyro(d)
    size = int(np.prod(d.event_shape))
    assert (g.batch_shape, g.dim) == (d.batch_shape, size)

    def row(x):
        return np.reshape(x, (*np.shape(x)[: np.ndim(x) - d.event_dim], size))

    x = d.sample(KEY, (4,))
    close(module.to_numpyro(g).log_prob(row(x)), d.log_prob(x))
    close(gj.mean(g), np.broadcast_to(row(d.mean), gj.mean(g).shape))
    if name not in ("MatrixNormal", "CAR", "sparse CAR"):  # these know no variance
        close(gj.variance(g), np.broadcast_to(row(d.variance), gj.mean(g).shape))


# distrax -----------------------------------------------------------------------------------------

TRIANGLES = {
    "one": ((4,), (4,), (4, 4), True),
    "upper": ((4,), (4,), (4, 4), False),
    "many means": ((4,), (7, 4), (4, 4), True),
    "many triangles": ((4,), (4,), (7, 4, 4), True),
    "many points": ((3, 7, 4), (4,), (4, 4), True),
    "many points and triangles, upper": ((3, 7, 4), (4,), (7, 4, 4), False),
}


def triangle(distrax, rng, loc, scale, is_lower=True):
    return distrax.MultivariateNormalTri(
        jnp.asarray(rng.normal(size=loc), jnp.float32),
        jnp.asarray(rng.normal(size=scale), jnp.float32),
        is_lower,
    )


@pytest.mark.parametrize("name", TRIANGLES)
def test_a_triangle_of_distrax_has_its_density_and_moments(name):
    module = adapter("distrax")
    point, loc, scale, is_lower = TRIANGLES[name]
    rng = np.random.default_rng(2022)
    theirs = triangle(module.distrax, rng, loc, scale, is_lower)
    x = np.asarray(rng.normal(size=point), np.float32)
    ours = module.to_distrax(module.from_distrax(theirs))
    assert ours.batch_shape == theirs.batch_shape
    close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-3)
    for method in ("entropy", "mean", "stddev", "variance", "covariance", "mode"):
        close(getattr(ours, method)(), getattr(theirs, method)(), rtol=1e-3)


def test_divergences_of_distrax_broadcast_between_its_own_and_those_of_tfp():
    module = adapter("distrax")
    distrax, tfd, rng = module.distrax, module.tfd, np.random.default_rng(2022)
    p, q = (triangle(distrax, rng, *x) for x in [((5, 1, 4), (3, 4, 4)), ((3, 4), (4, 4))])
    ours = [module.to_distrax(module.from_distrax(d)) for d in (p, q)]
    of_tfp = [tfd.MultivariateNormalTriL(d.loc, d.scale_tri) for d in (p, q)]
    for function in ("kl_divergence", "cross_entropy"):
        want = getattr(p, function)(q)
        assert want.shape == (5, 3)
        for a, b in [(ours[0], q), (p, ours[1]), ours, (ours[0], of_tfp[1])]:
            close(getattr(a, function)(b), want, rtol=1e-3)
    close(tfd.kl_divergence(of_tfp[0], ours[1]), p.kl_divergence(q), rtol=1e-3)
    inside = distrax.Independent(tfd.Normal(jnp.zeros(4), 1.0), 1)
    close(module.from_distrax(inside).cov.scale, np.ones(4))


@pytest.mark.parametrize("index", [2, slice(-1), (slice(None), slice(-1)), (..., -1)], ids=str)
def test_indices_of_distrax_take_elements_of_the_batch(index):
    module = adapter("distrax")
    theirs = triangle(module.distrax, np.random.default_rng(2022), (6, 5, 4), (4, 4))
    ours = module.to_distrax(module.from_distrax(theirs))
    assert ours[index].batch_shape == theirs[index].batch_shape
    np.testing.assert_array_equal(ours[index].mean(), theirs[index].mean())


@pytest.mark.parametrize(
    ("mean", "scale", "point"),
    [
        (np.zeros(2), [1.0, 1.0], [0.0, -0.5]),
        (np.zeros(2), [1.0, 1.0], [200.0, -200.0]),
        (np.zeros((4, 3)), [0.3] * 3, [-0.1, 0.0, -0.5]),
        (np.zeros((4, 3)), [0.1] * 3, np.full((5, 4, 3), -0.1)),
    ],
)
def test_a_diagonal_of_distrax_has_its_density(mean, scale, point):
    module = adapter("distrax")
    arrays = (jnp.asarray(x, jnp.float32) for x in (mean, scale))
    d = module.to_distrax(module.from_distrax(module.distrax.MultivariateNormalDiag(*arrays)))
    expected = stats.norm(mean, scale).logpdf(np.asarray(point)).sum(-1)
    close(d.log_prob(np.asarray(point, np.float32)), expected, rtol=1e-6)
    close(d.prob(np.asarray(point, np.float32)), np.exp(expected), rtol=2e-5)


# TFP and flowjax ---------------------------------------------------------------------------------


def test_a_triangle_of_tfp_with_a_negative_pivot_has_its_moments_and_divergence():
    module = adapter("tfp", "tensorflow_probability")
    mean, lower = np.array([-1.0, 1.0]), np.array([[3.0, 0.0], [1.0, -2.0]]) / 3
    other = np.array([0.5, 1.2]), np.array([[3.0, 0.0], [1.0, 2.0]])
    p, q = (
        module.tfd.MultivariateNormalTriL(*(x.astype(np.float32) for x in pair))
        for pair in ((mean, lower), other)
    )
    ours = module.to_tfp(module.from_tfp(p))
    close(ours.mean(), mean, rtol=1e-6)
    close(ours.covariance(), lower @ lower.T, rtol=1e-6)
    between = np.linalg.solve(other[1], lower)
    distance = np.linalg.solve(other[1], other[0] - mean)
    expected = (np.sum(between**2) + distance @ distance - 2) / 2
    expected -= np.linalg.slogdet(between)[1]
    for a, b in ((ours, q), (p, module.to_tfp(module.from_tfp(q)))):
        close(a.kl_divergence(b), expected, rtol=1e-6)


FULL = np.array([[0.36, 0.12, 0.06], [0.12, 0.29, -0.13], [0.06, -0.13, 0.26]])


@pytest.mark.filterwarnings("ignore:The 'warn' function:DeprecationWarning")  # these two of TFP
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")
@pytest.mark.parametrize("kind", ["diagonal", "triangle", "full matrix", "matrix normal"])
def test_normals_of_linear_operators_of_tfp_have_their_densities(kind):
    module = adapter("tfp", "tensorflow_probability")
    operators, lower = module.tfp.tf2jax.linalg, np.linalg.cholesky(np.linalg.inv(FULL))
    mean, x = np.array([[1.0, 2, 3], [11, 22, 33]]), np.array([[-0.9, 0, 0.1], [-10, 0, 9]])
    mean, x, lower = (jnp.asarray(v, jnp.float32) for v in (mean, x, lower))
    if kind == "matrix normal":
        row, column = operators.LinearOperatorLowerTriangular, operators.LinearOperatorDiag
        scales = row(lower[:2, :2]), column(jnp.array([1.0, -2.0, 0.5]))
        d = module.tfd.MatrixNormalLinearOperator(mean, *scales)
        g, x, expected = module.from_tfp(d), x.ravel(), d.log_prob(x)
        assert g.dim == 6
    else:
        experimental = pytest.importorskip(
            "tensorflow_probability.substrates.jax.experimental.distributions"
        )
        factor = {
            "diagonal": lambda: operators.LinearOperatorDiag(jnp.array([[1, -2.0, 3], [2, 1, 2]])),
            "triangle": lambda: operators.LinearOperatorLowerTriangular(-lower),
            "full matrix": lambda: operators.LinearOperatorFullMatrix(lower[::-1]),
        }[kind]()
        d = experimental.MultivariateNormalPrecisionFactorLinearOperator(mean, factor)
        g, expected = module.from_tfp(d), d.log_prob(x)
        close(gj.covariance(g), np.broadcast_to(d.covariance(), (2, 3, 3)), rtol=1e-3)
        close(d.kl_divergence(module.to_tfp(g)), np.zeros(2), atol=1e-4)
    close(gj.log_prob(g, x), expected, rtol=1e-3)


def test_the_multivariate_normal_of_flowjax_has_its_density():
    module = adapter("flowjax")
    matrix = np.array([[2.0, 0.5], [0.5, 3.0]])
    theirs = module.dist.MultivariateNormal(jnp.arange(2.0), jnp.asarray(matrix, jnp.float32))
    ours = module.to_flowjax(module.from_flowjax(theirs))
    x = np.asarray(ours.sample(KEY, (3,)))
    close(ours.log_prob(x), stats.multivariate_normal([0.0, 1.0], matrix).logpdf(x), rtol=1e-5)
