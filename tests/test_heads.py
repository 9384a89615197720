"""Layers of flax that end in a Gaussian: where they start, what they take, and that they learn."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gaussjax as gj
from gaussjax import parametrize as pz

flax = pytest.importorskip("flax")
optax = pytest.importorskip("optax")
FORMS = {
    "isotropic": pz.IsotropicForm(),
    "diagonal": pz.DiagonalForm(),
    "low rank": pz.LowRankForm(1),
    "full": pz.FullForm(),
    "banded": pz.BandedForm(1),
    "precision": pz.PrecisionForm(),
}
FEATURES, DIM = 3, 2


@pytest.fixture(autouse=True)
def promotion_as_flax_expects():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def of_nnx(form, **options):
    """Parameters, and a function of them and of features."""
    nnx = importlib.import_module("flax.nnx")
    module = importlib.import_module("gaussjax.adapters.flax.nnx")
    head = module.GaussianHead(FEATURES, DIM, form=form, rngs=nnx.Rngs(0), **options)
    graph, params = nnx.split(head)
    return params, lambda params, x: nnx.merge(graph, params)(x)


def of_linen(form, **options):
    module = importlib.import_module("gaussjax.adapters.flax.linen")
    head = module.GaussianHead(DIM, form=form, **options)
    return head.init(jax.random.key(0), jnp.zeros(FEATURES)), head.apply


HEADS = {"nnx": of_nnx, "linen": of_linen}
PAIRS = [("linen", "full"), *[("nnx", form) for form in FORMS]]


@pytest.mark.parametrize(("library", "form"), PAIRS)
def test_a_head_starts_at_a_round_gaussian_for_every_row_of_features(library, form):
    scale = (0.01, 100.0)
    params, apply = HEADS[library](FORMS[form], scale=scale)
    g = apply(params, jnp.zeros((4, 5, FEATURES)))
    assert (g.batch_shape, g.dim) == ((4, 5), DIM)
    # One deviation in units of each coordinate is one for each.
    assert pz.form_of(g) == FORMS["diagonal" if form == "isotropic" else form]
    start = gj.from_scale(jnp.zeros(DIM), jnp.array(scale))
    np.testing.assert_allclose(gj.kl_divergence(g, start), 0, atol=1e-8)
    near = apply(params, jax.random.normal(jax.random.key(1), (100, FEATURES)))
    divergence = gj.kl_divergence(near, start)
    assert np.all((divergence > 0) & (divergence < 0.5))


@pytest.mark.parametrize(("library", "form"), PAIRS)
def test_a_head_is_finite_whatever_the_features_are_and_a_bad_row_stays_alone(library, form):
    params, apply = HEADS[library](FORMS[form])
    x = jnp.array([1.0, 1e3, -1e3, jnp.nan, 0.0])[:, None] * jnp.array([1.0, -2.0, 0.5])

    def loss(params, x):
        g = apply(params, x)
        return -gj.log_prob(g, jnp.ones(DIM)) + gj.kl_divergence(g, gj.standard(DIM))

    values = jax.jit(loss)(params, x)
    np.testing.assert_array_equal(np.isnan(values), [False, False, False, True, False])
    rows = jax.vmap(jax.grad(loss), (None, 0))(params, x)
    for leaf in jax.tree.leaves(rows):
        assert np.all(np.isfinite(leaf[np.array([0, 1, 2, 4])]))
    mapped = jax.vmap(jax.vmap(apply, (None, 0)), (None, 0))(params, x[None, [0, 1, 4]])
    whole = apply(params, x[None, [0, 1, 4]])
    for a, b in zip(jax.tree.leaves(mapped), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", HEADS)
def test_a_head_in_half_precision_ends_in_float32(library):
    params, apply = HEADS[library](pz.FullForm(), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    g = apply(params, jnp.ones((2, FEATURES), jnp.bfloat16))
    assert (g.mean.dtype, g.cov.lower.dtype) == (jnp.float32, jnp.float32)


@pytest.mark.parametrize("library", HEADS)
def test_a_scale_that_is_none_and_a_map_that_does_not_start_at_one_are_refused(library):
    for scale in (0.0, (1.0, -1.0), (1.0, 2.0, 3.0)):
        with pytest.raises(ValueError, match="scale must be a positive number, or 2 of them"):
            HEADS[library](pz.FullForm(), scale=scale)
    with pytest.raises(TypeError, match="scale must be a number, or a sequence of some"):
        HEADS[library](pz.FullForm(), scale="wide")
    with pytest.raises(TypeError, match="scale must be static, got a tracer"):
        jax.jit(lambda x: HEADS[library](pz.FullForm(), scale=x)[0])(1.0)
    with pytest.raises(ValueError, match="diagonal must take the value 1"):
        HEADS[library](pz.FullForm(), diagonal=pz.Exp(floor=2.0))


@pytest.mark.parametrize(("library", "form"), PAIRS)
def test_a_head_learns_a_covariance_that_depends_on_features(library, form):
    """Of data that the head itself can make: its likelihood comes as close as 2,000 rows allow."""
    rng = np.random.default_rng(0)
    start, apply = HEADS[library](FORMS[form])
    truth = jax.tree.map(lambda w: w + 0.5 * rng.normal(size=w.shape).astype(w.dtype), start)
    x = jnp.asarray(rng.uniform(-1, 1, (2000, FEATURES)), jnp.float32)
    y = gj.sample(jax.random.key(2), apply(truth, x))
    optimizer = optax.adam(0.03)

    @jax.jit
    def fit(params):
        def step(state, _):
            params, moments = state
            loss = lambda p: -jnp.mean(gj.log_prob(apply(p, x), y))  # noqa: E731 (of this step)
            updates, moments = optimizer.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=300)[0][0]

    before = jnp.mean(gj.kl_divergence(apply(truth, x), apply(start, x)))
    after = jnp.mean(gj.kl_divergence(apply(truth, x), apply(fit(start), x)))
    assert after < 0.03 < 0.2 < before


def test_a_module_of_nnx_keeps_a_prior_that_training_leaves_as_it_is():
    nnx = importlib.import_module("flax.nnx")
    module = importlib.import_module("gaussjax.adapters.flax.nnx")
    start = gj.from_low_rank(jnp.ones(DIM), jnp.ones(DIM), jnp.ones((DIM, 1)))

    class Model(nnx.Module):
        def __init__(self):
            self.head = module.GaussianHead(FEATURES, DIM, rngs=nnx.Rngs(0))
            self.prior = start

    model = Model()
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return gj.kl_divergence(model.head(jnp.ones(FEATURES)), model.prior)

        value, slopes = nnx.value_and_grad(loss)(model)
        optimizer.update(model, slopes)
        return value

    before, after = step(model, optimizer), step(model, optimizer)
    assert after < before
    for x, y in zip(jax.tree.leaves(model.prior), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(x, y)
