"""Bad input: the sentence that each case gets, and NaN where no sentence can be said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES, random_lower
from jax.experimental import checkify

import gaussjax as gj
from gaussjax import linalg, parametrize

EYE = np.eye(2, dtype=np.float32)
ZERO = np.zeros(2, np.float32)
G = gj.standard(2)
KEY = jax.random.key(0)

SHAPES = {
    "lower not square": (lambda: gj.from_cholesky(ZERO, np.ones((2, 3))), "lower must be square"),
    "lower with one axis": (
        lambda: gj.from_cholesky(ZERO, ZERO),
        "lower must have at least 2 axes",
    ),
    "lower a scalar": (lambda: gj.from_cholesky(ZERO, 1.0), "lower must have at least 2 axes"),
    "covariance not square": (
        lambda: gj.from_covariance(ZERO, np.ones((2, 3))),
        r"matrix must be square in its last two axes, got shape \(2, 3\)",
    ),
    "precision not square": (
        lambda: gj.from_precision(ZERO, np.ones((2, 3))),
        "matrix must be square",
    ),
    "mean of another size": (
        lambda: gj.from_covariance(np.zeros(3), EYE),
        r"mean must have 2 entries along its last axis, the dimension of matrix, got shape \(3,\)",
    ),
    "mean of one": (lambda: gj.from_covariance(np.zeros(1), EYE), "mean must have 2 entries"),
    "mean and scale scalars": (lambda: gj.from_scale(0.0, 1.0), "mean must have at least 1 axes"),
    "scale of another size": (lambda: gj.from_scale(ZERO, np.ones(3)), "mean must have 3 entries"),
    "mean and structure differ": (
        lambda: gj.entropy(gj.Gaussian(jnp.zeros(3), G.cov)),
        "mean must have 2 entries along its last axis, the dimension of the covariance",
    ),
    "x of one": (
        lambda: gj.log_prob(G, np.zeros((5, 1))),
        r"x must have 2 entries along its last axis, the dimension of g, got shape \(5, 1\)",
    ),
    "x a scalar": (lambda: gj.log_prob(G, 0.0), r"x must have at least 1 axes, got shape \(\)"),
    "noise of another size": (lambda: gj.color(G, np.zeros(3)), "noise must have 2 entries"),
    "batches that do not broadcast": (
        lambda: gj.log_prob(gj.Gaussian(jnp.zeros((3, 2)), G.cov), np.zeros((4, 2))),
        r"got g \(3,\), x \(4,\); to take each with each, give x the batch shape \(4, 1\)",
    ),
    "mean and factor do not broadcast": (
        lambda: gj.from_cholesky(np.zeros((3, 2)), np.broadcast_to(EYE, (4, 2, 2))),
        r"Batch shapes must broadcast, got mean \(3,\), lower \(4,\)",
    ),
    "p and q of different dimension": (
        lambda: gj.kl_divergence(G, gj.standard(3)),
        "q must have dimension 2 like p, got 3",
    ),
    "covariances of different dimension": (
        lambda: gj.logdet_divergence(G.cov, gj.standard(3).cov),
        "b must have dimension 2 like a, got 3",
    ),
    "ragged mean": (lambda: gj.from_scale([[0.0], [0.0, 1.0]], 1.0), "mean must be a rectangular"),
    "packed vector of no triangle": (
        lambda: parametrize.lower_from_vector(np.zeros(4)),
        r"vector must have d\(d\+1\)/2 entries for some d, got 4",
    ),
    "packed correlation of no triangle": (
        lambda: parametrize.correlation_from_vector(np.zeros(4)),
        r"vector must have d\(d-1\)/2 entries for some d, got 4",
    ),
    "head of another size": (
        lambda: parametrize.gaussian_from_vector(np.zeros((3, 6)), 2),
        r"vector must have 5 entries along its last axis for dim 2, got shape \(3, 6\)",
    ),
    "negative sample shape": (lambda: gj.sample(KEY, G, (-1,)), "shape must not be negative"),
    "negative dimension": (lambda: gj.standard(-1), "dim must not be negative, got -1"),
    "several keys": (lambda: gj.sample(jax.random.split(KEY), G), "key must be a single PRNG key"),
    "cholesky not square": (lambda: linalg.cholesky(np.ones((2, 3))), "matrix must be square"),
    "solve with other rows": (
        lambda: linalg.solve_lower(EYE, np.zeros(3)),
        r"rhs must have 2 rows like lower, got shape \(3,\)",
    ),
    "sum of other rows": (
        lambda: linalg.factor_of_sum(np.ones((2, 1)), np.ones((3, 1))),
        "b must have 2 rows like a",
    ),
    "product of other size": (
        lambda: linalg.lower_product(EYE, np.eye(3)),
        "b must have 2 entries",
    ),
    "jitter of zero": (lambda: linalg.safe_cholesky(EYE, jitter=0.0), "jitter must be positive"),
}

TYPES = {
    "complex": (lambda: gj.log_prob(G, ZERO + 1j), "x must be a real array, got dtype complex"),
    "bool": (lambda: gj.log_prob(G, ZERO > 0), "x must be a real array, got dtype bool"),
    "object": (lambda: gj.log_prob(G, np.array([None, None])), "x must be a real array"),
    "string": (lambda: gj.log_prob(G, "no"), "x must be a real array, got str"),
    "None": (lambda: gj.log_prob(G, None), "x must be a real array, got NoneType"),
    "bool in a constructor": (lambda: gj.from_scale([True, False], 1.0), "mean must be a real"),
    "seed for a key": (lambda: gj.sample(0, G), "key must be a PRNG key"),
    "float array for a key": (lambda: gj.sample(ZERO, G), "key must be a PRNG key"),
    "sample shape of floats": (
        lambda: gj.sample(KEY, G, (1.5,)),
        "shape must be a tuple of integers",
    ),
    "dimension of a float": (lambda: gj.standard(2.0), "dim must be an integer, got float"),
    "argument missing": (lambda: gj.log_prob(G), "missing a required argument: 'x'"),
    "argument too many": (lambda: gj.entropy(G, ZERO), "too many positional arguments"),
    "no Gaussian": (
        lambda: gj.log_prob(ZERO, G),
        r"g must be a Gaussian, got float32 of shape \(2,\): the arguments are \(g, x\)",
    ),
    "key and Gaussian exchanged": (
        lambda: gj.sample(G, KEY),
        r"key must be a PRNG key, .* got Gaussian: the arguments are \(key, g, shape\)",
    ),
    "mask before the vector": (
        lambda: gj.condition_where(G, np.array([True, False]), ZERO),
        "too many positional arguments",
    ),
    "jitter of a boolean": (lambda: linalg.safe_cholesky(EYE, jitter=True), "jitter must be a num"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_wrong_shape_is_refused_with_a_sentence(case):
    call, sentence = SHAPES[case]
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("case", TYPES)
def test_a_wrong_type_is_refused_with_a_sentence(case):
    call, sentence = TYPES[case]
    with pytest.raises(TypeError, match=sentence):
        call()


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.jit,
        lambda f: lambda *args: jax.eval_shape(f, *args),
        lambda f: lambda g, x: jax.vmap(f, (None, 0))(g, x[None]),
    ],
    ids=["eager", "jit", "eval_shape", "vmap"],
)
def test_the_sentence_is_the_same_under_every_transformation(transform):
    with pytest.raises(ValueError, match="x must have 2 entries along its last axis"):
        transform(gj.log_prob)(G, jnp.zeros((5, 1)))


INDEFINITE = np.array([[1.0, 2.0], [2.0, 1.0]], np.float32)
BAD_MATRICES = {
    "asymmetric": (np.array([[1.0, 0.5], [0.0, 1.0]]), "must be symmetric"),
    "indefinite": (INDEFINITE, "must be positive definite"),
    "singular": (np.ones((2, 2)), "must be positive definite"),
    "zero": (np.zeros((2, 2)), "must be positive definite"),
    "NaN": (np.diag([1.0, np.nan]), "must be finite"),
    "infinite": (np.diag([1.0, np.inf]), "must be finite"),
}


@pytest.mark.parametrize("construct", [gj.from_covariance, gj.from_precision])
@pytest.mark.parametrize("case", BAD_MATRICES)
def test_a_matrix_that_is_no_covariance_is_refused_with_its_batch_index(construct, case):
    matrix, sentence = BAD_MATRICES[case]
    batch = np.stack([EYE, EYE, matrix.astype(np.float32)])
    with pytest.raises(ValueError, match=f"matrix {sentence}.* at batch index \\(2,\\)"):
        construct(ZERO, batch)


@pytest.mark.parametrize("construct", [gj.from_covariance, gj.from_precision])
@pytest.mark.parametrize("case", BAD_MATRICES)
def test_under_jit_it_is_nan_in_its_own_batch_element_alone(construct, case):
    batch = np.stack([EYE, BAD_MATRICES[case][0].astype(np.float32), 2 * EYE])
    x = np.ones(2, np.float32)
    values = jax.jit(lambda m: gj.log_prob(construct(ZERO, m), x))(batch)
    good = jax.jit(lambda m: gj.log_prob(construct(ZERO, m), x))(np.stack([EYE, EYE, 2 * EYE]))
    assert np.isnan(values[1])
    np.testing.assert_array_equal(values[np.array([0, 2])], good[np.array([0, 2])])


@pytest.mark.parametrize(
    ("construct", "bad", "sentence"),
    [
        (gj.from_cholesky, np.diag([1.0, -1.0]), "lower must be finite with a positive diagonal"),
        (gj.from_cholesky, np.diag([1.0, 0.0]), "lower must be finite with a positive diagonal"),
        (gj.from_cholesky, np.diag([1.0, np.nan]), "lower must be finite with a positive diagonal"),
        (gj.from_scale, np.array([1.0, -1.0]), "scale must be finite and not negative"),
        (gj.from_scale, np.array([1.0, np.nan]), "scale must be finite and not negative"),
        (gj.from_variance, np.array([1.0, np.inf]), "variance must be finite and not negative"),
    ],
)
def test_a_bad_factor_is_refused_eagerly_and_nan_under_jit(construct, bad, sentence):
    bad = bad.astype(np.float32)
    batch = np.stack([np.ones_like(bad) if bad.ndim == 1 else EYE, bad])
    with pytest.raises(ValueError, match=sentence + " at batch index \\(1,\\)"):
        construct(ZERO, batch)
    for function in (
        gj.sample,
        lambda key, g: gj.kl_divergence(g, G),
        lambda key, g: gj.entropy(g),
    ):
        values = jax.jit(lambda m, f=function: f(KEY, construct(ZERO, m)))(batch)
        assert np.all(np.isfinite(values[0]))
        assert np.all(np.isnan(values[1]))


def test_checkify_names_the_first_bad_element_under_jit():
    def program(matrix):
        return gj.entropy(gj.checks.check_gaussian(gj.from_covariance(ZERO, matrix)))

    checked = jax.jit(checkify.checkify(program))
    batch = np.stack([[EYE, EYE], [EYE, INDEFINITE]])
    error, _ = checked(batch)
    with pytest.raises(ValueError, match=r"at batch index \(1,1,\) is not valid"):
        error.throw()
    error, value = checked(np.stack([[EYE, EYE], [EYE, EYE]]))
    error.throw()
    np.testing.assert_allclose(value, program(EYE), rtol=1e-6)


def test_asymmetry_within_rounding_is_symmetrised():
    matrix = np.array([[1.0, 0.5], [0.5 + 1e-6, 1.0]], np.float32)
    sigma = gj.covariance(gj.from_covariance(ZERO, matrix))
    np.testing.assert_array_equal(sigma, sigma.T)
    np.testing.assert_allclose(sigma, matrix, atol=1e-6)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_nan_in_is_nan_out_and_the_neighbours_keep_their_bits(kind):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 2, np.float32)
    g = gj.Gaussian(jnp.zeros(2), cov)
    x = jnp.array([[0.5, 1.0], [jnp.nan, 1.0], [jnp.inf, 1.0], [-1.0, 2.0]])
    clean = x.at[1:3].set(0.0)
    values, reference = gj.log_prob(g, x), gj.log_prob(g, clean)
    assert np.isnan(values[1])
    assert values[2] == -np.inf
    np.testing.assert_array_equal(values[np.array([0, 3])], reference[np.array([0, 3])])


@pytest.mark.parametrize("structure", [gj.Cholesky, gj.PrecisionCholesky])
@pytest.mark.parametrize("d", [3, 17])
def test_what_stands_above_the_diagonal_is_ignored_by_every_function(structure, d):
    lower = random_lower(np.random.default_rng(0), d)
    garbage = np.where(np.triu(np.ones((d, d)), 1) > 0, np.nan, lower).astype(np.float32)
    x = jnp.ones(d)
    functions = [
        gj.covariance, gj.precision, gj.variance, gj.entropy,
        lambda g: gj.log_prob(g, x), lambda g: gj.score(g, x), lambda g: gj.whiten(g, x),
        lambda g: gj.color(g, x), lambda g: gj.sample(KEY, g),
        lambda g: gj.kl_divergence(g, gj.standard(d)),
        lambda g: gj.kl_divergence(gj.standard(d), g),
    ]  # fmt: skip
    clean, dirty = (gj.Gaussian(jnp.zeros(d), structure(jnp.asarray(a))) for a in (lower, garbage))
    for function in functions:
        np.testing.assert_array_equal(function(dirty), function(clean))
        gradient = jax.grad(lambda g, f=function: jnp.sum(f(g)))(dirty).cov.lower
        assert np.all(np.triu(gradient, 1) == 0)
        assert np.all(np.isfinite(np.tril(gradient)))


@pytest.mark.parametrize("kind", STRUCTURES)
def test_no_batch_and_no_dimension_are_defined(kind):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 2, np.float32)
    empty = gj.Gaussian(jnp.zeros((0, 2)), cov)
    assert gj.log_prob(empty, jnp.zeros(2)).shape == (0,)
    assert gj.sample(KEY, empty, (3,)).shape == (3, 0, 2)
    assert gj.kl_divergence(empty, G).shape == (0,)
    assert gj.covariance(empty).shape == (0, 2, 2)
    if kind in ("circulant", "toeplitz"):
        return  # a stationary process has at least one point
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 0, np.float32)
    point = gj.Gaussian(jnp.zeros(0), cov)
    assert gj.log_prob(point, jnp.zeros(0)) == 0
    assert gj.kl_divergence(point, gj.standard(0)) == 0
    assert gj.kl_divergence(gj.standard(0), point) == 0
    assert gj.entropy(point) == 0
    assert gj.sample(KEY, point, (3,)).shape == (3, 0)
    assert gj.color_symmetric(point, jnp.zeros(0)).shape == (0,)
    assert gj.precision(point).shape == (0, 0)


def test_integers_are_promoted():
    g = gj.from_covariance([0, 0], [[2, 0], [0, 2]])
    assert g.mean.dtype == jnp.float32
    assert gj.log_prob(g, np.array([1, 2])).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32_and_comes_back_as_it_was(dtype):
    lower = jnp.asarray(random_lower(np.random.default_rng(0), 3), dtype)
    half = gj.Gaussian(jnp.zeros(3, dtype), gj.Cholesky(lower))
    full = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    x = jnp.ones(3, dtype)
    for function in (gj.entropy, gj.covariance, lambda g: gj.kl_divergence(g, g)):
        value = function(half)
        assert value.dtype == dtype
        with jax.numpy_dtype_promotion("standard"):
            np.testing.assert_array_equal(value, function(full).astype(dtype))
    assert gj.sample(KEY, half).dtype == dtype
    assert gj.log_prob(half, x).dtype == dtype
    assert gj.from_covariance(jnp.zeros(3, dtype), gj.covariance(half)).cov.lower.dtype == dtype


def test_single_and_double_precision_mix_to_double():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        g = gj.Gaussian(jnp.zeros(2, jnp.float64), gj.Diagonal(jnp.ones(2, jnp.float32)))
        assert gj.log_prob(g, jnp.zeros(2, jnp.float32)).dtype == jnp.float64


def test_legacy_and_typed_keys_give_the_same_samples():
    typed = gj.sample(jax.random.key(3), G, (4,))
    np.testing.assert_array_equal(typed, gj.sample(jax.random.PRNGKey(3), G, (4,)))


def test_scales_far_from_one_are_right():
    for scale in (1e-15, 1e15):
        g = gj.from_covariance(ZERO, np.float32(scale**2) * EYE)
        x = np.full(2, scale, np.float32)
        expected = -1 - 2 * np.log(scale) - np.log(2 * np.pi)
        np.testing.assert_allclose(gj.log_prob(g, x), expected, rtol=1e-6)
        assert gj.kl_divergence(g, g) == 0
