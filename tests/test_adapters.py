"""Gaussians in other libraries: their models run, and their own numbers come out."""

import importlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES

import gaussjax as gj

KEY = jax.random.key(0)
KINDS = sorted(STRUCTURES)


@pytest.fixture(autouse=True)
def promotion_as_the_libraries_expect():
    """They rely on JAX's implicit promotion."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def gaussian(kind, d=4, seed=0, batch=()):
    rng = np.random.default_rng(seed)
    cov, dense = STRUCTURES[kind](rng, d, np.float32)
    mean = rng.normal(size=(*batch, d)).astype(np.float32)
    return gj.Gaussian(jnp.asarray(mean), cov), mean, dense.astype(np.float32)


def close(got, expected, rtol=2e-4, atol=2e-5):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("library", ["numpyro", "distrax", "flax"])
def test_a_missing_library_is_named_with_its_extra(library):
    code = f"import sys; sys.modules[{library!r}] = None; import gaussjax.adapters.{library}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'gaussjax[{library}]'" in run.stderr


def test_gaussjax_itself_imports_no_other_library():
    others = (
        "'blackjax', 'distrax', 'flax', 'flowjax', 'lineax', 'numpyro', 'tensorflow_probability'"
    )
    code = f"import sys, gaussjax; print([x for x in ({others}) if x in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# NumPyro -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numpyro():
    library = pytest.importorskip("numpyro")
    importlib.import_module("gaussjax.adapters.numpyro")
    return library


def to_numpyro(g):
    return importlib.import_module("gaussjax.adapters.numpyro").to_numpyro(g)


def from_numpyro(d):
    return importlib.import_module("gaussjax.adapters.numpyro").from_numpyro(d)


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_the_multivariate_normal_of_numpyro(kind, numpyro):
    g, mean, dense = gaussian(kind, batch=(3,))
    d, expected = to_numpyro(g), numpyro.distributions.MultivariateNormal(mean, dense)
    assert (d.batch_shape, d.event_shape, d.has_rsample) == ((3,), (4,), True)
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    close(d.log_prob(x), expected.log_prob(x))
    for name in ("mean", "variance"):
        close(getattr(d, name), getattr(expected, name))
    close(d.mode, mean)
    close(d.entropy(), np.broadcast_to(expected.entropy(), 3))  # NumPyro's lacks the batch
    assert d.sample(KEY, (7,)).shape == (7, 3, 4)
    np.testing.assert_array_equal(d.sample(KEY, (7,)), gj.sample(KEY, g, (7,)))
    wide = d.expand((2, 3))
    close(wide.log_prob(x[:2]), expected.log_prob(x[:2]))
    assert wide.sample(KEY).shape == (2, 3, 4)
    close(d.to_event(1).log_prob(x), expected.to_event(1).log_prob(x))
    close(d.mask(np.array([True, False, True])).log_prob(x)[:, 1], 0)


def test_a_distribution_of_numpyro_goes_through_transformations(numpyro):
    from numpyro.distributions.batch_util import promote_batch_shape, vmap_over

    g, mean, _ = gaussian("cholesky", batch=(3,))
    d = to_numpyro(g)
    value = jax.jit(lambda d, x: d.log_prob(x))(d, mean)
    shared = to_numpyro(gj.broadcast_to(g, (3,)))
    mapped = jax.vmap(lambda d, x: d.log_prob(x), in_axes=(vmap_over(shared, gaussian=0), 0))
    close(mapped(shared, mean), value)
    made = jax.vmap(lambda m: to_numpyro(gj.from_scale(m, jnp.ones(4))))(mean)
    assert promote_batch_shape(made).batch_shape == (3,)
    gradient = jax.grad(lambda g: jnp.sum(to_numpyro(g).rsample(KEY)))(g)
    close(gradient.mean, 1)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_plate_in_a_scan_has_the_density_of_its_normals(steps, numpyro):
    """With as many steps as elements, axes that are taken for each other would go unnoticed."""
    dist, values = numpyro.distributions, np.random.default_rng(0).normal(size=(steps, 3, 2))

    def chain(of):
        def step(carry, _):
            with numpyro.plate("elements", 3):
                x = numpyro.sample("x", of(carry))
            return x[..., 0, :], x

        return lambda: numpyro.contrib.control_flow.scan(step, jnp.zeros(2), None, length=steps)[1]

    importlib.import_module("numpyro.contrib.control_flow")
    densities = [
        numpyro.infer.util.log_density(chain(of), (), {}, {"x": jnp.asarray(values, jnp.float32)})[
            0
        ]
        for of in (
            lambda m: to_numpyro(gj.from_scale(m, jnp.ones(2))),
            lambda m: dist.MultivariateNormal(m, jnp.eye(2)),
        )
    ]
    close(*densities)


def test_a_model_with_plates_is_sampled_and_fitted(numpyro):
    infer, rng = numpyro.infer, np.random.default_rng(0)
    prior = gj.from_low_rank(jnp.zeros(2), jnp.ones(2), jnp.ones((2, 1)))
    noise = gj.from_scale(jnp.zeros(2), jnp.array([0.5, 1.0]))
    data = (np.array([1.0, -1.0]) + rng.normal(size=(20, 2))).astype(np.float32)

    def model(data):
        z = numpyro.sample("z", to_numpyro(prior))
        with numpyro.plate("data", len(data)):
            numpyro.sample("x", to_numpyro(gj.shift(noise, z)), obs=data)

    many = gj.from_scale(jnp.zeros(2), noise.cov.scale / np.sqrt(20))
    exact, _ = gj.observe(prior, jnp.eye(2), many, data.mean(0))
    mcmc = infer.MCMC(infer.NUTS(model), num_warmup=200, num_samples=400, progress_bar=False)
    mcmc.run(jax.random.key(1), data)
    draws = mcmc.get_samples()["z"]
    assert np.all(np.abs(draws.mean(0) - exact.mean) < 5 * gj.stddev(exact) / np.sqrt(100))

    guide = infer.autoguide.AutoMultivariateNormal(model)
    svi = infer.SVI(model, guide, numpyro.optim.Adam(0.03), infer.TraceMeanField_ELBO())
    fitted = svi.run(jax.random.key(2), 1500, data, progress_bar=False)
    loc = guide.median(fitted.params)["z"]
    assert np.all(np.abs(loc - exact.mean) < 0.5 * gj.stddev(exact))


@pytest.mark.parametrize("guide", ["AutoCholesky", "AutoLowRank", "AutoBanded"])
def test_a_guide_of_each_structure_finds_the_posterior(guide, numpyro):
    """Of a chain of three, whose precision is banded and whose covariance has one strong factor."""
    infer = numpyro.infer
    prior = gj.from_banded_precision(jnp.ones(3), [[2.0, 2.0, 2.0], [-0.9, -0.9, 0.0]])

    def model(y):
        x = numpyro.sample("x", to_numpyro(prior))
        numpyro.sample("y", numpyro.distributions.Normal(x, 0.5).to_event(1), obs=y)

    y = jnp.array([1.0, 0.0, 2.0])
    exact, _ = gj.observe(prior, jnp.eye(3), gj.from_scale(jnp.zeros(3), 0.5), y)
    made = getattr(importlib.import_module("gaussjax.adapters.numpyro"), guide)(model)
    optimizer = numpyro.optim.Adam(lambda step: 0.05 * jnp.exp(-step / 400))
    svi = infer.SVI(model, made, optimizer, infer.Trace_ELBO(num_particles=16))
    params = svi.run(jax.random.key(0), 2000, y, progress_bar=False).params
    posterior = made.get_posterior(params).gaussian
    assert gj.kl_divergence(posterior, exact) < 0.02
    close(made.median(params)["x"], posterior.mean)
    low, high = made.quantiles(params, [0.25, 0.75])["x"]
    close(high - low, 1.34898 * gj.stddev(posterior))
    draws = made.sample_posterior(KEY, params, sample_shape=(2000,))["x"]
    close(jnp.std(draws, axis=0), gj.stddev(posterior), rtol=0.1)
    moved = made.get_transform(params)(jnp.zeros(3))
    close(moved, posterior.mean)


def test_a_divergence_without_a_closed_form_is_left_to_samples(numpyro):
    """As NumPyro's mean-field objective does where there is none."""
    infer, dist = numpyro.infer, numpyro.distributions

    def model():
        numpyro.sample("x", to_numpyro(gj.standard(2)))

    def guide():
        numpyro.sample("x", dist.Laplace(jnp.zeros(2), 1.0).to_event(1))

    objective = infer.TraceMeanField_ELBO(num_particles=500)
    value = objective.loss(KEY, {}, model, guide)
    close(value, 2 * (1 + 0.5 * np.log(2 * np.pi) - 1 - np.log(2)), atol=0.3)


def test_gaussians_of_numpyro_keep_the_dtype_of_what_they_are_made_of(numpyro):
    dist, scale = numpyro.distributions, jnp.float32(2.0)
    matrix = scale * jnp.eye(2, dtype=scale.dtype)
    with jax.enable_x64(True):
        for d in (
            dist.Normal(scale, 2.0),
            dist.Normal(0, jnp.stack([scale, scale])).to_event(1),
            dist.GaussianRandomWalk(scale, num_steps=3),
            dist.ZeroSumNormal(scale, event_shape=(3,)),
            dist.GaussianStateSpace(2, matrix, scale_tril=matrix),
        ):
            assert {x.dtype for x in jax.tree.leaves(from_numpyro(d))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("kind", ["diagonal", "low_rank", "banded_precision"])
def test_a_mixture_takes_components_of_any_structure(kind, numpyro):
    dist = numpyro.distributions
    g, mean, dense = gaussian(kind, batch=(3,))
    weights = dist.Categorical(jnp.array([0.2, 0.3, 0.5]))
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    ours = dist.MixtureSameFamily(weights, to_numpyro(g))
    theirs = dist.MixtureSameFamily(weights, dist.MultivariateNormal(mean, dense))
    close(ours.log_prob(x), theirs.log_prob(x))
    close(ours.mean, theirs.mean)
    assert ours.sample(KEY, (6,)).shape == (6, 4)


NORMALS = {
    "independent": lambda d: d.Normal(jnp.arange(6.0).reshape(2, 3), 2.0).to_event(1),
    "expanded": lambda d: d.Normal(jnp.arange(3.0), 2.0).expand((2, 3)).to_event(1),
    "expanded multivariate": lambda d: d.MultivariateNormal(jnp.ones(2), jnp.eye(2)).expand((3,)),
}


@pytest.mark.parametrize("name", NORMALS)
def test_a_normal_of_numpyro_has_the_same_density_as_a_gaussian(name, numpyro):
    d = NORMALS[name](numpyro.distributions)
    g = from_numpyro(d)
    assert (g.batch_shape, (g.dim,)) == (d.batch_shape, d.event_shape)
    x = d.sample(KEY, (4,))
    close(gj.log_prob(g, x), d.log_prob(x))
    close(numpyro.distributions.kl_divergence(to_numpyro(g), to_numpyro(g)), 0, atol=1e-6)


def test_matrices_chains_and_single_numbers_become_vectors(numpyro):
    dist = numpyro.distributions
    single = from_numpyro(dist.Normal(jnp.array([0.0, 1.0]), 2.0))
    assert (single.batch_shape, single.dim) == ((2,), 1)
    row, column = jnp.array([[1.0, 0], [0.5, 2]]), jnp.diag(jnp.array([1.0, 2, 3]))
    matrix = dist.MatrixNormal(jnp.ones((2, 3)), row, column)
    x = matrix.sample(KEY, (4,))
    close(gj.log_prob(from_numpyro(matrix), x.reshape(4, 6)), matrix.log_prob(x))
    chain = dist.GaussianStateSpace(
        3, jnp.array([[0.9, 0.1], [0.0, 0.8]]), scale_tril=jnp.eye(2), initial_value=jnp.ones(2)
    )
    x = chain.sample(KEY, (4,))
    close(gj.log_prob(from_numpyro(chain), x.reshape(4, 6)), chain.log_prob(x))
    zero_sum = from_numpyro(dist.ZeroSumNormal(2.0, event_shape=(3,)))
    close(gj.variance(zero_sum), dist.ZeroSumNormal(2.0, event_shape=(3,)).variance)
    assert gj.rank(zero_sum) == 2
    for wrong in (dist.Gamma(1.0, 1.0), dist.Gamma(jnp.ones(2), 1.0).to_event(1)):
        with pytest.raises(TypeError, match="distribution must be"):
            from_numpyro(wrong)
    with pytest.raises(ValueError, match="one event axis"):
        from_numpyro(dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2))
    with pytest.raises(TypeError, match="g must be a Gaussian"):
        to_numpyro(dist.Normal(0.0, 1.0))


def test_a_long_random_walk_keeps_its_digits_and_one_mean_stands_for_all(numpyro):
    dist = numpyro.distributions
    walk = dist.GaussianRandomWalk(0.5, num_steps=10_000)
    g, x = from_numpyro(walk), walk.sample(KEY)
    close(gj.variance(g)[-1], 2500, rtol=1e-5)
    close(gj.log_prob(g, x), walk.log_prob(x), rtol=1e-6)
    for d in (
        dist.MultivariateNormal(covariance_matrix=jnp.eye(3)),
        dist.CAR(0.0, 0.5, 2.0, np.array([[0.0, 1], [1, 0]])),
    ):
        x = d.sample(KEY, (4,))
        close(gj.log_prob(from_numpyro(d), x), d.log_prob(x))
    assert from_numpyro(dist.Normal(0, 1)).mean.dtype == jnp.float32
    standard = to_numpyro(gj.standard(3))
    for d in (dist.GaussianRandomWalk(1.0, 3), dist.MultivariateNormal(0.0, jnp.eye(3))):
        want = gj.kl_divergence(from_numpyro(d), gj.standard(3))
        close(dist.kl_divergence(d, standard), want)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_circulant_normal_keeps_its_small_eigenvalues(size, numpyro):
    """Those of a smooth kernel: seven orders of magnitude, which a row of the matrix forgets."""
    half = np.exp(-np.linspace(0, 16, size // 2 + 1)).astype(np.float32)
    d = numpyro.distributions.CirculantNormal(jnp.ones(size), covariance_rfft=jnp.asarray(half))
    whole = half.astype(float)[np.minimum(np.arange(size), size - np.arange(size))]
    close(gj.logdet(from_numpyro(d).cov), np.log(whole).sum(), rtol=1e-6)


def test_divergences_to_and_from_the_normals_of_numpyro(numpyro):
    dist = numpyro.distributions
    p, q = dist.MultivariateNormal(jnp.ones(2), jnp.array([[2.0, 1], [1, 2]])), gj.standard(2)
    normal = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    want = dist.kl_divergence(p, normal)
    close(dist.kl_divergence(p, to_numpyro(q)), want)
    close(dist.kl_divergence(to_numpyro(from_numpyro(p)), normal), want)
    close(dist.kl_divergence(p, to_numpyro(q).expand((3,))), jnp.full(3, want))
    independent = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    close(dist.kl_divergence(to_numpyro(from_numpyro(p)), independent), want)


# distrax -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distrax():
    library = pytest.importorskip("distrax")
    importlib.import_module("gaussjax.adapters.distrax")
    return library


def to_distrax(g):
    return importlib.import_module("gaussjax.adapters.distrax").to_distrax(g)


def from_distrax(d):
    return importlib.import_module("gaussjax.adapters.distrax").from_distrax(d)


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_the_multivariate_normal_of_distrax(kind, distrax):
    g, mean, dense = gaussian(kind, batch=(3,))
    d = to_distrax(g)
    expected = distrax.MultivariateNormalFullCovariance(jnp.asarray(mean), jnp.asarray(dense))
    assert (d.batch_shape, d.event_shape, d.dtype) == ((3,), (4,), jnp.float32)
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    close(d.log_prob(x), expected.log_prob(x))
    for name in ("mean", "median", "mode", "variance", "stddev", "covariance", "entropy"):
        close(getattr(d, name)(), getattr(expected, name)())
    assert d.sample(seed=0, sample_shape=(7, 2)).shape == (7, 2, 3, 4)
    x, value = d.sample_and_log_prob(seed=KEY, sample_shape=(6,))
    close(value, d.log_prob(x))
    close(d[1].log_prob(x[:, 1]), d.log_prob(x)[:, 1])
    assert d[:2].batch_shape == (2,)
    assert [each.batch_shape for each in d] == [()] * 3
    close(jax.jit(lambda d, x: d.log_prob(x))(d, x), d.log_prob(x))


def test_mixtures_flows_and_products_of_distrax_take_a_gaussian(distrax):
    g, mean, dense = gaussian("low_rank", batch=(3,))
    theirs = distrax.MultivariateNormalFullCovariance(jnp.asarray(mean), jnp.asarray(dense))
    weights = distrax.Categorical(probs=jnp.array([0.2, 0.3, 0.5]))
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    made = {
        "mixture": lambda d: distrax.MixtureSameFamily(weights, d),
        "flow": lambda d: distrax.Transformed(d, distrax.Block(distrax.ScalarAffine(1.0, 2.0), 1)),
        "product": lambda d: distrax.Independent(d, 1),
    }
    for name, make in made.items():
        ours, other = make(to_distrax(g)), make(theirs)
        points = x if name == "mixture" else np.broadcast_to(x[:, None], (5, 3, 4))
        close(ours.log_prob(points), other.log_prob(points))
        assert ours.sample(seed=KEY, sample_shape=(2,)).shape[0] == 2


def test_normals_of_distrax_are_gaussians(distrax):
    rng = np.random.default_rng(3)
    matrix = jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)
    loc = jnp.arange(3.0)
    normals = [
        distrax.MultivariateNormalDiag(loc, jnp.array([1.0, -2.0, 3.0])),
        distrax.MultivariateNormalTri(loc, matrix),
        distrax.MultivariateNormalTri(loc, matrix, is_lower=False),
        distrax.MultivariateNormalTri(loc),
        distrax.MultivariateNormalFullCovariance(loc, matrix @ matrix.T + jnp.eye(3)),
        distrax.MultivariateNormalDiagPlusLowRank(loc, jnp.ones(3), matrix[:, :1]),
        distrax.Independent(distrax.Normal(loc, 2.0), 1),
    ]
    standard = distrax.MultivariateNormalDiag(jnp.zeros(3), jnp.ones(3))
    for d in normals:
        g = from_distrax(d)
        x = d.sample(seed=KEY, sample_shape=(4,))
        close(gj.log_prob(g, x), d.log_prob(x), rtol=1e-3, atol=1e-3)
        want = gj.kl_divergence(g, gj.standard(3))
        close(to_distrax(g).kl_divergence(standard), want)
        close(d.kl_divergence(to_distrax(gj.standard(3))), want)
    assert from_distrax(distrax.Normal(jnp.zeros(2), 1.0)).batch_shape == (2,)
    with pytest.raises(TypeError, match="distribution must be a normal distribution"):
        from_distrax(distrax.Gamma(1.0, 1.0))
    with pytest.raises(ValueError, match="one event axis"):
        from_distrax(distrax.Independent(distrax.Normal(jnp.zeros((2, 3)), 1.0), 2))


# flax --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_flax_writes_and_reads_every_structure(kind):
    serialization = pytest.importorskip("flax.serialization")
    importlib.import_module("gaussjax.adapters.flax")
    g, _, dense = gaussian(kind)
    other = jax.tree.map(jnp.zeros_like, g)
    again = serialization.from_bytes({"g": other}, serialization.to_bytes({"g": g}))["g"]
    assert jax.tree.structure(again) == jax.tree.structure(g)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(g), strict=True):
        np.testing.assert_array_equal(x, y)
    close(gj.covariance(again), dense)
    with pytest.raises(ValueError, match="must have the fields"):
        serialization.from_state_dict(g, {"mean": g.mean})


def test_flax_writes_and_reads_moments_and_laws_of_estimates():
    serialization = pytest.importorskip("flax.serialization")
    importlib.import_module("gaussjax.adapters.flax")
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    g = gj.standard(2)
    state = gj.moments(rows), gj.StudentT(jnp.float32(3.0), g.mean, g.cov)
    zero = jax.tree.map(jnp.zeros_like, state)
    again = serialization.from_bytes(zero, serialization.to_bytes(state))
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_train_state_of_a_gaussian_is_trained_and_restored():
    serialization = pytest.importorskip("flax.serialization")
    optax, train_state = (
        pytest.importorskip("optax"),
        pytest.importorskip("flax.training.train_state"),
    )
    importlib.import_module("gaussjax.adapters.flax")

    def start():
        params = {"g": gj.from_scale(jnp.zeros(2), jnp.ones(2))}
        return train_state.TrainState.create(apply_fn=None, params=params, tx=optax.adam(0.1))

    state, target = start(), gj.from_scale(jnp.ones(2), jnp.full(2, 0.5))
    for _ in range(3):
        gradients = jax.grad(lambda p: gj.kl_divergence(p["g"], target))(state.params)
        state = state.apply_gradients(grads=gradients)
    again = serialization.from_bytes(start(), serialization.to_bytes(state))
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)
    assert gj.kl_divergence(again.params["g"], target) < gj.kl_divergence(gj.standard(2), target)
