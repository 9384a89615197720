"""A Gaussian in a program around it: dtypes, settings, printing, saving, what is empty or small."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES
from compiling import quick_jit

import gaussjax as gj

KEY = jax.random.key(0)
EYE = np.eye(2, dtype=np.float32)
ZERO = np.zeros(2, np.float32)

# What takes a number, a list or integers beside a Gaussian in float32.
MIXED = {
    "scale_by a number": lambda g: gj.scale_by(g, 2.0),
    "scale_by integers": lambda g: gj.scale_by(g, np.array([2, 3])),
    "shift by a list": lambda g: gj.shift(g, [1.0, 2.0]),
    "log_prob of a list": lambda g: gj.log_prob(g, [1.0, 2.0]),
    "log_prob of integers": lambda g: gj.log_prob(g, jnp.array([1, 2])),
    "affine": lambda g: gj.affine(g, [[1.0, 0.5]], offset=[1]),
    "condition": lambda g: gj.condition(g, [0], [1.0]),
    "condition on a number": lambda g: gj.condition(g, 0, 1.0),
    "condition_where": lambda g: gj.condition_where(g, [1.0, 2.0], mask=[True, False]),
    "impute": lambda g: gj.impute(KEY, g, [1.0, 2.0], mask=[True, False]),
    "observe": lambda g: gj.observe(g, [[1.0, 0.5]], gj.standard(1, np.float32), [1]),
    "solve": lambda g: gj.solve(g, [1, 2]),
    "from_scale": lambda g: gj.from_scale(g.mean, [1.0, 2.0]),
    "from_covariance": lambda g: gj.from_covariance([0, 0], gj.covariance(g)),
    "from_low_rank": lambda g: gj.from_low_rank(g.mean, [1, 2], [[1.0], [2.0]]),
    "from_kronecker": lambda g: gj.from_kronecker([0, 0], [gj.covariance(g), [[1.0]]]),
    "from_block_diagonal": lambda g: gj.from_block_diagonal(g.mean, [[[1.0]], [[2.0]]]),
    "bare structure": lambda g: gj.shift(gj.Gaussian(g.mean, gj.Diagonal([1.0, 2.0])), [1, 2]),
    "solve_lower": lambda g: gj.linalg.solve_lower(gj.covariance(g), [1.0, 2.0]),
}


@pytest.mark.parametrize("name", MIXED)
def test_numbers_lists_and_integers_do_not_promote_float32(name):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        g = gj.from_scale(jnp.zeros(2, jnp.float32), jnp.ones(2, jnp.float32))
        for leaf in jax.tree.leaves(MIXED[name](g)):
            assert leaf.dtype == jnp.float32
        last, _ = jax.lax.scan(lambda g, _: (gj.scale_by(g, 2.0), None), g, length=2)
        np.testing.assert_array_equal(gj.stddev(last), [4.0, 4.0])
        assert gj.from_scale([0.0, 0.0], [1.0, 2.0]).mean.dtype == jnp.float64
        assert gj.log_prob(g, np.zeros(2)).dtype == jnp.float64  # an array says what it is


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_numbers_and_lists_follow_half_precision(dtype):
    g = gj.from_scale(jnp.zeros(2, dtype), [1.0, 2.0])
    for made in (g, gj.scale_by(g, 2.0), gj.shift(g, [1, 2]), gj.log_prob(g, [0.0, 1.0])):
        assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(dtype)}


def test_a_failure_that_has_a_status_or_a_sentence_has_it_under_debug_nans_too():
    indefinite = np.array([[1.0, 2.0], [2.0, 1.0]], np.float32)
    with jax.debug_nans(True):
        assert gj.linalg.downdate([[1.0]], [[2.0]]).status == 1
        assert gj.linalg.safe_cholesky(indefinite, jitter=1e-6).status == 2
        for construct in (gj.from_covariance, gj.from_precision):
            with pytest.raises(ValueError, match="must be positive definite"):
                construct(ZERO, indefinite)
        with pytest.raises(ValueError, match="diagonals must be those of a positive"):
            gj.from_banded_precision(ZERO, [[1.0, 1.0], [2.0, 0.0]])
        with pytest.raises(ValueError, match="column must have a positive"):
            gj.from_circulant(ZERO, [1.0, 2.0])
        with pytest.raises(ValueError, match="scale must be finite and not negative"):
            gj.from_scale(ZERO, [1.0, -1.0])
        with pytest.raises(ValueError, match="variance must be finite and not"):
            gj.from_variance(ZERO, [1.0, -1.0])
        with pytest.raises(ValueError, match="lower must be finite"):
            gj.from_cholesky(ZERO, -EYE)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_gaussian_is_compared_hashed_printed_copied_and_pickled(kind, capsys):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 6, np.float32)
    g = gj.Gaussian(jnp.arange(6.0), cov)
    again = pickle.loads(pickle.dumps(g))
    assert g == g  # identity is the claim
    assert g != again
    assert len({g, again, g, g.cov}) == 3
    assert jax.tree.structure(again) == jax.tree.structure(g)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(copy.deepcopy(g)), strict=True):
        np.testing.assert_array_equal(a, b)
    many = gj.broadcast_to(g, (100, 100))
    assert len(repr(many)) < 250
    assert "float32[100,100,6]" in repr(many)
    jax.eval_shape(print, g)
    assert "Gaussian(mean=float32[6], cov=" in capsys.readouterr().out


def test_a_few_numbers_are_printed_as_they_are():
    assert repr(gj.from_scale([0.0, 0.0], 2.0)) == (
        "Gaussian(mean=Array([0., 0.], dtype=float32), "
        "cov=Isotropic(scale=Array(2., dtype=float32), dim=2))"
    )
    assert repr(gj.Gaussian(0, None)) == "Gaussian(mean=0, cov=None)"


def test_orbax_saves_and_restores_a_gaussian_of_every_structure(tmp_path):
    checkpoint, rng = pytest.importorskip("orbax.checkpoint"), np.random.default_rng(0)
    saved = {
        kind: gj.Gaussian(jnp.ones((3, 4)), make(rng, 4, np.float32)[0])
        for kind, make in STRUCTURES.items()
    }
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", saved)
        checkpointer.wait_until_finished()
        again = checkpointer.restore(tmp_path / "saved", jax.eval_shape(lambda: saved))
    assert jax.tree.structure(again) == jax.tree.structure(saved)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(saved), strict=True):
        np.testing.assert_array_equal(x, y)


def nothing(kind):
    """A covariance of no dimension."""
    if kind == "stacked_blocks":
        return gj.StackedBlocks(gj.Cholesky(jnp.zeros((0, 2, 2))))
    if kind == "circulant":
        return gj.from_circulant([], []).cov
    return STRUCTURES[kind](np.random.default_rng(0), 0, np.float32)[0]


OF_NONE = {
    "log_prob": lambda g: gj.log_prob(g, jnp.zeros(0)),
    "gradient": lambda g: jnp.sum(jax.grad(gj.log_prob)(g, jnp.zeros(0)).mean),
    "kl": lambda g: gj.kl_divergence(g, gj.standard(0)),
    "kl from": lambda g: gj.kl_divergence(gj.standard(0), g),
    "kl of two": gj.kl_divergence,
    "gradient of kl": lambda g: jnp.sum(jax.grad(gj.kl_divergence)(g, gj.standard(0)).mean),
    "entropy": gj.entropy,
    "cross_entropy": lambda g: gj.cross_entropy(g, gj.standard(0)),
    "trace_solve": lambda g: gj.trace_solve(g.cov, g.cov),
    "logdet": gj.logdet,
    "mahalanobis": lambda g: gj.mahalanobis(g, jnp.zeros(0)),
    "log_evidence": lambda g: gj.product(g, gj.standard(0)).log_normalizer,
    "log_prob_observed": lambda g: gj.log_prob_observed(g, [], mask=jnp.zeros(0, bool)),
}
EMPTY = {
    "sample": lambda g: gj.sample(KEY, g, (3,)),
    "color": lambda g: gj.color(g, jnp.zeros(0)),
    "color_symmetric": lambda g: gj.color_symmetric(g, jnp.zeros(0)),
    "whiten": lambda g: gj.whiten(g, jnp.zeros(0)),
    "score": lambda g: gj.score(g, jnp.zeros(0)),
    "solve": lambda g: gj.solve(g, jnp.zeros(0)),
    "matvec": lambda g: gj.matvec(g, jnp.zeros(0)),
    "covariance": gj.covariance,
    "precision": gj.precision,
    "variance": gj.variance,
    "stddev": gj.stddev,
    "shift": lambda g: gj.shift(g, jnp.zeros(0)).mean,
    "scale_by": lambda g: gj.variance(gj.scale_by(g, 2.0)),
    "marginal": lambda g: gj.variance(gj.marginal(g, [])),
    "condition": lambda g: gj.variance(gj.condition(g, [], jnp.zeros(0))),
    "condition_where": lambda g: gj.condition_where(g, [], mask=jnp.zeros(0, bool)).mean,
    "convolve": lambda g: gj.variance(gj.convolve(g, gj.standard(0))),
    "product": lambda g: gj.product(g, gj.standard(0)).gaussian.mean,
    "as_cholesky": lambda g: gj.as_cholesky(g).cov.lower,
    "affine": lambda g: gj.affine(g, jnp.zeros((0, 0))).mean,
}


def test_what_has_no_dimension_is_observed():
    none = gj.from_cholesky(jnp.zeros(0), jnp.zeros((0, 0)))
    seen, y = jnp.zeros((2, 0)), jnp.ones(2)
    expected = float(gj.log_prob(gj.standard(2), y))
    assert float(gj.observe(none, seen, gj.standard(2), y).log_evidence) == expected
    mask = jnp.array([True, False])
    assert gj.observe(none, seen, gj.standard(2), y, mask=mask).log_evidence == expected / 2
    assert gj.smooth_step(none, seen, gj.standard(2), gj.standard(2)).dim == 0


@pytest.mark.parametrize("kind", STRUCTURES)
def test_no_dimension_is_defined_in_every_function(kind):
    """FAULTS F5."""
    g = gj.Gaussian(jnp.zeros(0), nothing(kind))
    two = g, g
    zeros = {n: f(*two) if f is gj.kl_divergence else f(g) for n, f in OF_NONE.items()}
    assert {name: float(value) for name, value in zeros.items()} == dict.fromkeys(zeros, 0.0)
    assert {name: f(g).size for name, f in EMPTY.items()} == dict.fromkeys(EMPTY, 0)
    assert {name: jax.vmap(f)(gj.broadcast_to(g, (2,))).size for name, f in EMPTY.items()} == (
        dict.fromkeys(EMPTY, 0)
    )


@pytest.mark.parametrize("kind", STRUCTURES)
def test_no_batch_is_defined_in_every_function(kind):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), 4, np.float32)
    g, x = gj.broadcast_to(gj.Gaussian(jnp.zeros(4), cov), (0,)), jnp.zeros((0, 4))

    @quick_jit
    def program(g, x):
        return (
            gj.log_prob(g, x), gj.kl_divergence(g, gj.standard(4)), gj.sample(KEY, g),
            gj.shift(g, x), gj.condition(g, [0], x[:, :1]), gj.condition_where(g, x, mask=x > 0),
            gj.observe(g, jnp.eye(2, 4), gj.standard(2), x[:, :2]), gj.covariance(g),
            jax.grad(lambda g: jnp.sum(gj.log_prob(g, x)))(g),
            gj.variance(gj.convolve(g, gj.standard(4))),
        )  # fmt: skip

    assert all(leaf.size == 0 for leaf in jax.tree.leaves(program(g, x)))


def test_blocks_that_a_marginal_leaves_out_entirely_are_no_structure_without_parts():
    g = gj.from_block_diagonal(np.zeros(3), [EYE, [[4.0]]])
    assert gj.marginal(g, []).dim == 0
    assert gj.sample(KEY, gj.marginal(g, [])).shape == (0,)


# Small things, each of which stands for its kind -------------------------------------------------


def test_large_entries_of_a_vector_give_a_unit_row():
    lower = gj.parametrize.correlation_from_vector([1e20])
    np.testing.assert_allclose(lower, [[1.0, 0.0], [1.0, 1e-20]])
    rows = gj.parametrize.correlation_from_vector(jnp.full(3, 3e38))
    np.testing.assert_allclose(np.sum(np.square(rows, dtype=float), axis=1), np.ones(3), rtol=1e-6)


def test_an_unsigned_index_beyond_the_integers_is_out_of_range_and_not_the_last():
    g = gj.from_scale([1.0, 2.0], [1.0, 2.0])
    index = jnp.array([2**32 - 1], jnp.uint32)
    assert np.isnan(gj.marginal(g, index).mean[0])
    pile = gj.stack([g, g])
    assert np.all(np.isnan(gj.take(pile, index).mean))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_small_integers_index_like_any_others(dtype):
    g = gj.Gaussian(jnp.arange(300.0), gj.Isotropic(1.0, 300))
    static = np.array([1, 2], dtype)
    np.testing.assert_array_equal(gj.marginal(g, static).mean, [1.0, 2.0])
    np.testing.assert_array_equal(gj.condition(g, static, [0.0, 0.0]).mean[:2], [0.0, 3.0])
    with pytest.raises(ValueError, match="must be below the dimension 2"):
        gj.marginal(gj.standard(2), np.array([200], np.uint8))


def test_integers_as_leaves_are_numbers_and_missing_elements_of_them_nan():
    g = gj.Gaussian(jnp.arange(6).reshape(3, 2), gj.Isotropic(1, 2))
    assert gj.log_prob(g, ZERO).dtype == jnp.float32
    assert np.all(np.isnan(gj.take(g, jnp.array([5])).mean))
    np.testing.assert_array_equal(gj.take(g, 1).mean, [2.0, 3.0])


def test_lists_may_hold_tracers_and_be_leaves():
    value = jax.jit(lambda s: gj.stddev(gj.from_scale([0.0, s], [1.0, s])))(3.0)
    np.testing.assert_array_equal(value, [1.0, 3.0])
    np.testing.assert_allclose(jax.jit(lambda s: gj.score(gj.standard(2), [s, 1.0]))(3.0), [-3, -1])
    scaled = jax.jit(lambda s: gj.scale_by(gj.standard(2), [s, 1.0]))(3.0)
    np.testing.assert_array_equal(gj.stddev(scaled), [3.0, 1.0])
    assert gj.logdet(gj.Diagonal([np.float32(1), np.float32(1)])) == 0
    cov = gj.Diagonal([1.0, 2.0])
    np.testing.assert_array_equal(gj.variance(gj.Gaussian([0.0, 0.0], cov)), [1.0, 4.0])
    assert len(jax.tree.leaves(gj.Cholesky([[1.0, 0.0], [2.0, 1.0]]))) == 1


def test_a_scalar_mean_stands_for_all_coordinates_and_one_of_size_one_does_not():
    g = gj.from_scale(0.0, np.ones(3))
    np.testing.assert_array_equal(g.mean, np.zeros(3))
    np.testing.assert_array_equal(gj.from_covariance(2.0, EYE).mean, [2.0, 2.0])
    assert gj.from_kronecker(0, [EYE, EYE]).mean.shape == (4,)
    assert gj.from_low_rank(0.0, np.ones(3), np.ones((3, 1))).mean.shape == (3,)
    with pytest.raises(ValueError, match="mean must have 3 entries"):
        gj.from_scale([0.0], np.ones(3))
    with pytest.raises(ValueError, match="mean must have at least 1 axes"):
        gj.from_isotropic(0.0, 1.0)


def test_positions_are_an_integer_a_slice_or_a_static_mask_too():
    g = gj.from_scale(np.arange(4.0), np.arange(1.0, 5))
    cases = [
        (0, [0]),
        (np.int64(-1), [3]),
        (jnp.array(2), [2]),
        (range(2), [0, 1]),
        (slice(1, None, 2), [1, 3]),
        (np.arange(4) > 2, [3]),
        ([True, False, True, False], [0, 2]),
    ]
    for indices, kept in cases:
        np.testing.assert_array_equal(gj.marginal(g, indices).mean, kept)
    batch = gj.from_scale(np.zeros((5, 4)), 1.0)
    for index in (0, jnp.array(1)):
        assert gj.condition(batch, index, np.ones(5)).batch_shape == (5,)
        assert gj.condition(batch, index, 1.0).dim == 3
    np.testing.assert_array_equal(gj.condition(g, slice(0, 3), np.zeros(3)).mean, [3.0])


SENTENCES = {
    "a mask that is traced there is condition_where": lambda: gj.marginal(
        gj.standard(2), jnp.array([True, False])
    ),
    r"A mask of indices must have shape \(2,\), got \(3,\)": lambda: gj.marginal(
        gj.standard(2), [True, False, True]
    ),
    "indices must be a sequence of integers, got a ragged list": lambda: gj.marginal(
        gj.standard(2), [[0], [0, 1]]
    ),
    "values must have 2 entries": lambda: gj.condition(gj.standard(3), [0, 1], [1.0]),
    "diagonals must have at least one row": lambda: gj.from_banded_precision(
        ZERO, np.zeros((0, 2))
    ),
    "jitter must be a number": lambda: gj.linalg.safe_cholesky(EYE, jitter=True),
    "got Gaussian: the arguments are": lambda: gj.sample(gj.standard(2), KEY),
    "g must be a Gaussian, got Cholesky": lambda: gj.log_prob(gj.Cholesky(jnp.eye(2)), ZERO),
    "g must be a Gaussian or a Covariance, got float32": lambda: gj.logdet(jnp.eye(2)),
    r"matrix must have at least 2 axes, got shape \(2,\)": lambda: gj.from_covariance(
        [0.0, 0.0], [1.0, 1.0]
    ),
    r"affine: too many positional arguments; the arguments are \(g, matrix, \*, offset\)": (
        lambda: gj.affine(gj.standard(2), EYE, ZERO)
    ),
    "mean of Gaussian must be an array, got NoneType": lambda: gj.entropy(
        gj.Gaussian(None, gj.Isotropic(1.0, 3))
    ),
    "lower of Cholesky must be an array, got list": lambda: gj.logdet(gj.Cholesky([[1], [1, 2]])),
    "and one for the blocks": lambda: gj.logdet(gj.StackedBlocks(gj.Isotropic(2.0, 3))),
    "cov of Gaussian must hold structures, got float32": lambda: gj.entropy(
        gj.Gaussian(jnp.zeros(2), jnp.eye(2))
    ),
    "factor must be a rectangular array": lambda: gj.scale_by(gj.standard(2), [1.0, [2.0]]),
    "offset must have 2 entries": lambda: gj.affine(gj.standard(2), EYE, offset=[1.0]),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_slip_gets_a_sentence(sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        SENTENCES[sentence]()


def test_jitter_may_be_any_number():
    for jitter in (np.float32(1e-3), 1, np.array([1e-6, 1e-3]), (1e-6, np.float64(1e-3))):
        assert gj.linalg.safe_cholesky([[1.0, 1.0], [1.0, 1.0]], jitter=jitter).status == 1
