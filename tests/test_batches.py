"""One meaning in every program: what leaves vmap, map and scan means what it meant inside."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES, random_lower
from compiling import quick_jit
from jax.sharding import PartitionSpec

import gaussjax as gj

B, D = 4, 4  # as many elements in each batch: what is misaligned still broadcasts
SCALES = jnp.arange(1.0, B + 1)
MEAN = jnp.asarray(np.random.default_rng(0).normal(size=(B, D)), jnp.float32)
LOWER = jnp.asarray(random_lower(np.random.default_rng(1), D))
SIGMA = LOWER @ LOWER.T
PART = SIGMA[:2, :2]
THIN = jnp.asarray(np.random.default_rng(2).normal(size=(D, 1)), jnp.float32)
COLUMN = jnp.array([1.0, 0.5, 0.25, 0.5])
ONES = jnp.ones(D)
CHAIN = jnp.array([[3.0, 3.0, 3.0, 3.0], [-1.0, -1.0, -1.0, 0.0]])

# Of a batch of means and one scale: leaves that have the batch, and leaves that do not.
MAKERS = {
    "from_scale": lambda s: gj.from_scale(MEAN, s),
    "from_scale of a vector": lambda s: gj.from_scale(MEAN, s * ONES),
    "from_scale of a batch": lambda s: gj.from_scale(MEAN[0], s * (1 + MEAN**2)),
    "from_isotropic": lambda s: gj.from_isotropic(MEAN, s),
    "from_variance": lambda s: gj.from_variance(MEAN, s),
    "from_cholesky": lambda s: gj.from_cholesky(MEAN, s * LOWER),
    "from_covariance": lambda s: gj.from_covariance(MEAN, s * SIGMA),
    "from_precision": lambda s: gj.from_precision(MEAN, s * SIGMA),
    "from_low_rank": lambda s: gj.from_low_rank(MEAN, s * ONES, THIN),
    "from_low_rank of a batch": lambda s: gj.from_low_rank(MEAN[0], s * (1 + MEAN**2), THIN),
    "from_kronecker": lambda s: gj.from_kronecker(MEAN, [s * PART, gj.Diagonal(ONES[:2])]),
    "from_kronecker of a batch": lambda s: gj.from_kronecker(
        MEAN, [PART, gj.Diagonal(s * (1 + MEAN[:, :2] ** 2))]
    ),
    "from_block_diagonal": lambda s: gj.from_block_diagonal(
        MEAN, [s * PART, gj.Diagonal(1 + MEAN[:, :2] ** 2)]
    ),
    "from_circulant": lambda s: gj.from_circulant(MEAN, s * COLUMN),
    "from_toeplitz": lambda s: gj.from_toeplitz(MEAN, s * COLUMN),
    "from_banded_precision": lambda s: gj.from_banded_precision(MEAN, s * CHAIN),
    "gaussian_from_vector": lambda s: gj.parametrize.gaussian_from_vector(
        s * jnp.linspace(-0.5, 0.5, gj.parametrize.gaussian_size(D)), D
    ),
    "standard": lambda s: gj.standard(D),
    "Gaussian": lambda s: gj.Gaussian(MEAN, gj.LowRank(s * ONES, THIN)),
    "Gaussian of a number": lambda s: gj.Gaussian(s * MEAN, gj.Isotropic(2.0, D)),
    "Gaussian of NumPy": lambda s: gj.Gaussian(s * MEAN, gj.Diagonal(np.ones(D, np.float32))),
    "StackedBlocks": lambda s: gj.Gaussian(
        MEAN, gj.StackedBlocks(gj.LowRank(s * jnp.ones((2, 2)), THIN[:2]))
    ),
    "Scaled": lambda s: gj.Gaussian(MEAN, gj.Scaled(gj.Toeplitz(COLUMN), s * ONES)),
    "Sum": lambda s: gj.Gaussian(MEAN, gj.Sum(gj.Toeplitz(s * COLUMN), gj.LowRank(ONES, THIN))),
}
# Of a Gaussian whose covariance the batch shares.
RETURNING = {
    "shift": lambda g, s: gj.shift(g, s * ONES),
    "scale_by a number": lambda g, s: gj.scale_by(g, s),
    "scale_by": lambda g, s: gj.scale_by(g, s * (1 + MEAN[0] ** 2)),
    "affine": lambda g, s: gj.affine(g, s * jnp.eye(2, D), offset=s * ONES[:2]),
    "marginal": lambda g, s: gj.shift(gj.marginal(g, [0, 2]), s * ONES[:2]),
    "condition": lambda g, s: gj.condition(g, [0], s * ONES[:1]),
    "condition at a traced index": lambda g, s: gj.condition(g, jnp.array([1]), s * ONES[:1]),
    "condition_where": lambda g, s: gj.condition_where(g, s * MEAN, mask=MEAN > 0),
    "convolve": lambda g, s: gj.convolve(g, gj.from_scale(ONES, s)),
    "joint": lambda g, s: gj.joint(g, s * jnp.eye(2, D), gj.standard(2)),
    "observe": lambda g, s: gj.observe(g, jnp.eye(2, D), gj.standard(2), s * ONES[:2]).posterior,
    "product": lambda g, s: gj.product(g, gj.from_scale(ONES, s)).gaussian,
    "concatenate": lambda g, s: gj.concatenate([g, gj.from_scale(ONES, s)]),
    "stack": lambda g, s: gj.stack([g, gj.shift(g, s * ONES)]),
    "take": lambda g, s: gj.take(gj.shift(g, s * ONES), slice(1, 3)),
    "reshape": lambda g, s: gj.reshape(gj.shift(g, s * ONES), (2, 2)),
    "broadcast_to": lambda g, s: gj.broadcast_to(gj.shift(g, s * ONES), (2, B)),
    "as_cholesky": lambda g, s: gj.as_cholesky(gj.scale_by(g, s)),
}


def ways(function):
    """A function of one scale, over all of them: what it returns must mean the same."""
    nested = jax.vmap(jax.vmap(function))(SCALES.reshape(2, 2))
    return {
        "vmap": jax.vmap(function)(SCALES),
        "nested vmap": jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), nested),
        "map": jax.lax.map(function, SCALES),
        "scan": jax.lax.scan(lambda _, s: (None, function(s)), None, SCALES)[1],
    }


def check(function):
    def moments(g):
        return gj.mean(g), gj.covariance(g)

    alone = quick_jit(lambda s: moments(function(s)))
    expected = [jnp.stack(parts) for parts in zip(*map(alone, SCALES), strict=True)]
    found = quick_jit(lambda: {way: moments(g) for way, g in ways(function).items()})()
    for name, got in found.items():
        for part, other in zip(got, expected, strict=True):
            assert part.shape == other.shape, name
            size = float(np.max(np.abs(other)))
            np.testing.assert_allclose(part, other, rtol=1e-5, atol=1e-5 * size, err_msg=name)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_inside_means_the_same_outside(name):
    check(MAKERS[name])


@pytest.mark.parametrize("name", RETURNING)
@pytest.mark.parametrize("kind", ["cholesky", "low_rank", "stacked_blocks"])
def test_what_is_returned_inside_means_the_same_outside(kind, name):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), D, np.float32)
    check(lambda s: RETURNING[name](gj.Gaussian(MEAN, cov), s))


@pytest.mark.parametrize("kind", STRUCTURES)
def test_every_leaf_has_one_batch_rank_from_the_start_and_what_is_shared_is_not_copied(kind):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), D, np.float32)
    g = gj.Gaussian(jnp.zeros((5, 3, D)), cov)
    shifted = gj.shift(g, jnp.ones((7, 1, 1, D)))
    for law, shape in ((g, (5, 3)), (shifted, (7, 5, 3))):
        assert law.batch_shape == shape
        for leaf, alone in zip(jax.tree.leaves(law.cov), jax.tree.leaves(cov), strict=True):
            assert leaf.shape == (1,) * len(shape) + jnp.shape(alone)


@pytest.mark.parametrize("d", [2, 3, 9, 20])
def test_whether_a_result_is_shared_does_not_depend_on_sizes_or_positions(d):
    g = gj.from_cholesky(jnp.zeros((5, d)), jnp.eye(d))
    one, few = jnp.ones(1), jnp.eye(1, d)
    kept = [
        gj.shift(g, jnp.ones(d)),
        gj.scale_by(g, 2.0),
        gj.marginal(g, [0]),
        gj.affine(g, few),
        gj.convolve(g, g),
        gj.joint(g, few, gj.standard(1)),
    ]
    whole = [
        *(gj.condition(g, [i], one) for i in (0, d - 1)),
        gj.condition(g, jnp.array([0]), one),
        gj.condition_where(g, jnp.ones(d), mask=jnp.arange(d) > 0),
        gj.observe(g, few, gj.standard(1), one).posterior,
        gj.product(g, gj.standard(d)).gaussian,
    ]
    assert [jax.eval_shape(lambda g: g, law).cov.lower.shape[0] for law in kept] == [1] * len(kept)
    assert [law.cov.lower.shape[0] for law in whole] == [5] * len(whole)


def test_shape_structs_are_aligned_and_what_is_no_array_is_left_alone():
    of = jax.ShapeDtypeStruct
    g = gj.Gaussian(of((5, 2), jnp.float32), gj.Cholesky(of((2, 2), jnp.float32)))
    assert g.cov.lower.shape == (1, 2, 2)
    made = jax.eval_shape(lambda: gj.Gaussian(jnp.zeros((5, 2)), gj.Cholesky(jnp.eye(2))))
    assert jax.tree.map(jnp.shape, made) is not None
    for leaf in (None, True, 0, object(), PartitionSpec("a", "b")):
        assert gj.Gaussian(leaf, gj.Cholesky(leaf)).cov.lower is leaf
        assert gj.Gaussian(jnp.zeros((5, 2)), gj.Cholesky(leaf)).cov.lower is leaf
    assert gj.Gaussian(0, None).cov is None
    tree = jax.tree.unflatten(jax.tree.structure(gj.standard(2)), [jnp.zeros((5, 2)), 1.0])
    assert tree.cov.scale == 1.0  # unflattening changes nothing
    moved = dataclasses.replace(gj.standard(2), mean=jnp.zeros((5, 2)))
    assert moved.cov.scale.shape == (1,)


def test_vmap_over_a_mean_with_one_shared_covariance():
    g = gj.Gaussian(MEAN, gj.Cholesky(LOWER))
    x = jnp.ones(D)
    shared = jax.vmap(lambda g: gj.log_prob(g, x), in_axes=(gj.Gaussian(0, None),))(g)
    np.testing.assert_allclose(shared, gj.log_prob(g, x), rtol=1e-6)
    whole = jax.vmap(gj.log_prob, (0, None))(gj.broadcast_to(g, (B,)), x)
    np.testing.assert_allclose(whole, gj.log_prob(g, x), rtol=1e-6)
    other = gj.Gaussian(MEAN[0], gj.Cholesky(jnp.stack([s * LOWER for s in SCALES])))
    covs = jax.vmap(gj.entropy, in_axes=(gj.Gaussian(None, 0),))(other)
    np.testing.assert_allclose(covs, gj.entropy(other), rtol=1e-6)
    drawn = jax.vmap(lambda g: gj.sample(jax.random.key(0), g), in_axes=(gj.Gaussian(0, None),))(g)
    assert drawn.shape == (B, D)
    taken = jax.vmap(lambda g: gj.shift(g, x), in_axes=(gj.Gaussian(0, None),))(g)
    np.testing.assert_allclose(gj.mean(taken), MEAN + 1, rtol=1e-6)


def test_another_excess_of_batch_axes_is_a_sentence():
    torn = jax.tree.unflatten(jax.tree.structure(gj.standard(2)), [jnp.zeros(2), jnp.ones(3)])
    for function in (
        gj.entropy,
        lambda g: gj.take(g, 0),
        lambda g: gj.sample(jax.random.key(0), g),
    ):
        with pytest.raises(ValueError, match=r"got g.mean \(\), g.cov.scale \(3,\); broadcast_to"):
            function(torn)


def test_the_batch_of_a_gaussian_that_vmap_returns_is_the_one_it_had():
    """FAULTS A1: 1 for 4, and 0 … 12.23 for 12.23 four times."""
    g = jax.vmap(lambda m, s: gj.from_scale(m, s))(jnp.zeros((4, 4, 2)), jnp.arange(1.0, 5))
    np.testing.assert_array_equal(gj.stddev(g)[3], np.full((4, 2), 4.0))
    np.testing.assert_allclose(
        gj.kl_divergence(g, gj.standard(2))[3], np.full(4, 12.2274), rtol=1e-5
    )
    np.testing.assert_array_equal(gj.stddev(gj.take(g, 3))[0], [4.0, 4.0])
    rng = np.random.default_rng(0)
    mean, lower = rng.normal(size=(5, 5, 2)), np.stack([random_lower(rng, 2)] * 5)
    lower *= np.arange(1, 6)[:, None, None]
    g = jax.vmap(gj.from_cholesky)(mean.astype(np.float32), lower.astype(np.float32))
    expected = gj.log_prob(gj.from_cholesky(mean, lower[:, None]), jnp.ones(2))
    np.testing.assert_allclose(gj.log_prob(g, jnp.ones(2)), expected, rtol=1e-5)


MEMBERS = {
    "logdet": lambda c: c.logdet(),
    "solve": lambda c: c.solve(jnp.ones((3, 3))),
    "times": lambda c: c.times(jnp.ones(3)),
    "variance": lambda c: c.variance(),
    "color": lambda c: c.color(jnp.ones(3)),
}


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("cov", [gj.Diagonal(jnp.ones((4, 3))), gj.Cholesky(jnp.ones((4, 3, 3)))])
def test_a_member_of_a_structure_refuses_a_batch_and_names_what_takes_it(cov, name):
    with pytest.raises(ValueError, match=r"batch shape \(4,\): use gaussjax.logdet, solve, matvec"):
        MEMBERS[name](cov)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_what_is_asked_of_a_covariance_takes_batches(kind):
    rng = np.random.default_rng(0)
    pairs = [STRUCTURES[kind](rng, D, np.float32) for _ in range(3)]
    cov = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[c for c, _ in pairs])
    v = rng.normal(size=(5, 1, D)).astype(np.float32)

    @quick_jit
    def program(cov, v):
        g = gj.Gaussian(jnp.zeros((3, D)), cov)
        of = [(gj.logdet(a), gj.solve(a, v), gj.matvec(a, v)) for a in (cov, g)]
        return of, jax.vmap(gj.matvec)(cov, v[:3, 0]), gj.solve(gj.take(g, 1), v[:, 0])

    results, mapped, columns = program(cov, v)
    for logdet, solved, times in results:
        assert (logdet.shape, solved.shape, times.shape) == ((3,), (5, 3, D), (5, 3, D))
        for i, (_, sigma) in enumerate(pairs):
            np.testing.assert_allclose(logdet[i], np.linalg.slogdet(sigma)[1], rtol=1e-4, atol=1e-5)
            expected = np.linalg.solve(sigma, v[:, 0].T).T
            np.testing.assert_allclose(solved[:, i], expected, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(times[:, i], v[:, 0] @ sigma, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mapped[2], pairs[2][1] @ v[2, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(columns, results[0][1][:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_filter_carries_one_structure_and_one_batch_shape_from_any_prior(kind):
    """FAULTS A3: a bank of filters whose prior has another structure, and parts that it shares."""
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), D, np.float32)
    prior = gj.Gaussian(MEAN, cov)
    noise, step_noise = gj.from_scale(jnp.zeros(2), 0.5), gj.from_scale(jnp.zeros(D), 0.1)
    y = jnp.asarray(np.random.default_rng(1).normal(size=(3, B, 2)), jnp.float32)

    def step(law, y):
        seen = gj.observe(law, jnp.eye(2, D), noise, y)
        moved = gj.affine(seen.posterior, 0.9 * jnp.eye(D))
        return gj.as_cholesky(gj.convolve(moved, step_noise)), seen.log_evidence

    @quick_jit
    def filtered(prior, y):
        start = gj.broadcast_to(gj.as_cholesky(prior), (B,))
        return jax.lax.scan(step, start, y)

    @quick_jit
    def each(prior, y):
        return jax.lax.scan(step, gj.as_cholesky(prior), y)

    last, evidence = filtered(prior, y)
    assert last.cov.lower.shape == (B, D, D)
    for i in range(B):
        alone, values = each(gj.take(prior, i), y[:, i])
        np.testing.assert_allclose(evidence[:, i], values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gj.mean(last)[i], alone.mean, rtol=1e-4, atol=1e-5)


def test_cond_and_while_loop_take_a_gaussian_of_one_structure():
    prior = gj.from_scale(MEAN[0], ONES)
    start = gj.as_cholesky(prior)

    def observed(g):
        return gj.observe(g, jnp.eye(1, D), gj.standard(1), jnp.ones(1)).posterior

    branched = jax.jit(lambda p, g: jax.lax.cond(p, observed, gj.as_cholesky, g))
    np.testing.assert_allclose(branched(True, start).mean, observed(prior).mean, rtol=1e-5)
    np.testing.assert_allclose(branched(False, start).mean, prior.mean)
    _, looped = jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, observed(s[1])), (0, start)
    )
    expected = observed(observed(observed(prior)))
    np.testing.assert_allclose(looped.mean, expected.mean, rtol=1e-5)


G = gj.Gaussian(
    jnp.arange(48.0).reshape(3, 4, 2, 2), gj.Diagonal(1 + jnp.arange(8.0).reshape(4, 1, 2))
)
INDICES = {
    "integer": 1,
    "negative": -1,
    "slice": slice(None, None, -1),
    "ellipsis": ...,
    "integer after an ellipsis": (..., 1),
    "slice and integer": (slice(None), 1),
    "slices": (slice(0, 2), slice(1, None, 2), slice(0, 1)),
    "new axis": (None, 0, ...),
    "array": np.array([2, 0]),
    "list": [2, 0, 1],
    "two arrays": (np.array([0, 2]), np.array([1, 3])),
    "array after a slice": (slice(None), np.array([[3], [0]])),
    "mask": np.array([True, False, True]),
    "mask of two axes": np.arange(12).reshape(3, 4) % 5 == 0,
    "small integers": np.array([1, 2], np.uint8),
    "nothing": np.zeros(0, int),
}


@pytest.mark.parametrize("name", INDICES)
def test_elements_are_taken_as_numpy_takes_them(name):
    index = INDICES[name]
    taken = gj.take(G, index)
    items = index if isinstance(index, tuple) else (index,)
    has_ellipsis = any(i is ... for i in items)
    numpy_index = (*items, slice(None)) if has_ellipsis else items  # of the event axis
    for function in (gj.mean, gj.stddev):
        np.testing.assert_array_equal(function(taken), np.asarray(function(G))[numpy_index])


@pytest.mark.parametrize("index", [slice(0, 0), slice(1, None), slice(None), slice(0, 5), 0, -1])
def test_a_batch_of_one_is_indexed_like_any_other(index):
    g = gj.from_scale([[1.0, 2.0]], [3.0, 4.0])
    taken = gj.take(g, index)
    assert taken.batch_shape == np.zeros(1)[index].shape
    np.testing.assert_array_equal(gj.mean(taken), np.array([[1.0, 2.0]])[index])


def test_what_a_batch_shares_stays_shared_when_elements_are_taken():
    g = gj.Gaussian(jnp.zeros((5, 6, D)), gj.Cholesky(LOWER))
    assert gj.take(g, 2).cov.lower.shape == (1, D, D)
    assert gj.take(g, (slice(1, 3), slice(None))).cov.lower.shape == (1, 1, D, D)
    assert gj.reshape(g, (30,)).cov.lower.shape == (1, D, D)
    assert gj.broadcast_to(g, (5, 6)).cov.lower.shape == (5, 6, D, D)


def test_batches_are_reshaped_and_broadcast_as_numpy_does():
    for function in (gj.mean, gj.stddev):
        whole = np.asarray(function(G))
        np.testing.assert_array_equal(function(gj.reshape(G, (6, -1))), whole.reshape(6, 4, 2))
        wide = function(gj.broadcast_to(G, (5, 3, 4, 2)))
        np.testing.assert_array_equal(wide, np.broadcast_to(whole, (5, 3, 4, 2, 2)))


def test_parts_that_are_concatenated_broadcast():
    """FAULTS A4: batch shapes () and (3,)."""
    g = gj.concatenate([gj.standard(2), gj.from_scale(jnp.zeros((3, 1)), [[1.0], [2.0], [3.0]])])
    np.testing.assert_array_equal(gj.stddev(g), [[1, 1, 1], [1, 1, 2], [1, 1, 3]])
    with pytest.raises(ValueError, match=r"got gs\[0\] \(2,\), gs\[1\] \(3,\)"):
        gj.concatenate([gj.from_scale(jnp.zeros((n, 1)), 1.0) for n in (2, 3)])


SENTENCES = {
    "index must have at most one item for each": lambda: gj.take(G, (0, 0, 0, 0)),
    "one ellipsis": lambda: gj.take(G, (..., ...)),
    "got dtype bool": lambda: gj.take(G, True),
    "index must be a rectangular array, got a ragged list": lambda: gj.take(G, [0, [1]]),
    "index must be below the batch size 3 on axis 0, got 5": lambda: gj.take(G, (5, [0, 1])),
    "g must not be empty": lambda: gj.take(gj.broadcast_to(gj.standard(2), (0,)), [0]),
    r"got \(-1, -1\)": lambda: gj.reshape(G, (-1, -1)),
    r"index must be below the batch size 4 on axis 1, got 4": lambda: gj.take(G, (0, 4)),
    r"must have a batch shape that broadcasts to \(3, 5, 2\)": lambda: gj.broadcast_to(
        G, (3, 5, 2)
    ),
    r"shape must have 24 elements": lambda: gj.reshape(G, (5, -1)),
    "shape must be a tuple of integers": lambda: gj.reshape(G, (2.0, 12)),
    r"Batch shapes must broadcast, got g.mean \(3,\), g.cov.scale \(2,\)": lambda: gj.entropy(
        gj.Gaussian(jnp.zeros((3, 1)), gj.Diagonal(jnp.ones((2, 1))))
    ),
    r"p \(3, 8\), q \(3,\); where q goes with the first axes, give it the batch shape \(3, 1\)": (
        lambda: gj.kl_divergence(
            gj.from_scale(jnp.zeros((3, 8, 1)), 1.0), gj.from_isotropic(jnp.zeros((3, 1)), 1.0)
        )
    ),
    r"got g \(3,\), x \(150,\); to take each with each, give x the batch shape \(150, 1\)": (
        lambda: gj.log_prob(gj.from_scale(jnp.zeros((3, 1)), 1.0), jnp.zeros((150, 1)))
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_slip_with_batches_gets_a_sentence(sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        SENTENCES[sentence]()


def test_keywords_work_wherever_a_signature_shows_a_name():
    g, x = gj.from_scale(MEAN, 2.0), jnp.ones(D)
    value = gj.log_prob(g, x)
    np.testing.assert_array_equal(gj.log_prob(g, x=x), value)
    np.testing.assert_array_equal(gj.log_prob(x=x, g=g), value)
    np.testing.assert_array_equal(gj.kl_divergence(q=g, p=g), np.zeros(B))
    mapped = jax.vmap(gj.log_prob)(gj.broadcast_to(g, (B,)), x=jnp.stack([x] * B))
    np.testing.assert_allclose(mapped, value, rtol=1e-6)
    lower = gj.linalg.solve_lower(rhs=x, lower=LOWER)
    np.testing.assert_array_equal(lower, gj.linalg.solve_lower(LOWER, x))
    softplus = gj.parametrize.Softplus()
    made = gj.parametrize.lower_from_vector(vector=jnp.ones(3), diagonal=softplus)
    np.testing.assert_allclose(made[0, 0], np.log(1 + np.e), rtol=1e-6)
