"""TFP, flowjax, lineax and BlackJAX: their models run on Gaussians, and their numbers come out."""

import importlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import STRUCTURES
from scipy import stats

import gaussjax as gj
from gaussjax import parametrize as pz

KEY = jax.random.key(0)
KINDS = ["banded_precision", "cholesky", "diagonal", "low_rank"]
LIBRARIES = {"tfp": "tensorflow_probability", "flowjax": "flowjax", "lineax": "lineax"}
LIBRARIES["blackjax"] = "blackjax"


@pytest.fixture(autouse=True)
def promotion_as_the_libraries_expect():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def adapter(name):
    pytest.importorskip(LIBRARIES[name], reason=f"{name} is not installed on this lane")
    return importlib.import_module(f"gaussjax.adapters.{name}")


def gaussian(kind, d=4, batch=()):
    rng = np.random.default_rng(0)
    cov, dense = STRUCTURES[kind](rng, d, np.float32)
    mean = rng.normal(size=(*batch, d)).astype(np.float32)
    return gj.Gaussian(jnp.asarray(mean), cov), mean, dense


def close(got, expected, rtol=2e-4, atol=2e-5):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(library):
    code = f"import sys; sys.modules[{LIBRARIES[library]!r}] = None; "
    code += f"import gaussjax.adapters.{library}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'gaussjax[{library}]'" in run.stderr


# TFP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_the_multivariate_normal_of_tfp(kind):
    module = adapter("tfp")
    g, mean, dense = gaussian(kind, batch=(3,))
    d = module.to_tfp(g)
    theirs = module.tfd.MultivariateNormalFullCovariance(mean, dense.astype(np.float32))
    assert (tuple(d.batch_shape), tuple(d.event_shape), d.dtype) == ((3,), (4,), jnp.float32)
    np.testing.assert_array_equal(d.batch_shape_tensor(), [3])
    np.testing.assert_array_equal(d.event_shape_tensor(), [4])
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    close(d.log_prob(x), theirs.log_prob(x))
    for name in ("mean", "mode", "variance", "stddev", "covariance"):
        close(getattr(d, name)(), getattr(theirs, name)())
    close(d.entropy(), np.broadcast_to(theirs.entropy(), 3))
    assert d.sample((7, 2), seed=KEY).shape == (7, 2, 3, 4)
    draws, value = d.experimental_sample_and_log_prob(6, seed=KEY)
    close(value, d.log_prob(draws))
    close(d[1].log_prob(draws[:, 1]), value[:, 1])
    close(d.kl_divergence(theirs), 0, atol=1e-3)


def test_models_of_tfp_take_gaussians():
    module = adapter("tfp")
    tfd, tfb = module.tfd, module.tfb
    g, mean, dense = gaussian("low_rank", batch=(3,))
    ours, theirs = (
        module.to_tfp(g),
        tfd.MultivariateNormalFullCovariance(mean, dense.astype(np.float32)),
    )
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    made = {
        "mixture": lambda d: tfd.MixtureSameFamily(tfd.Categorical(logits=jnp.zeros(3)), d),
        "flow": lambda d: tfb.Softplus()(d),
        "product": lambda d: tfd.Independent(d, 1),
        "joint": lambda d: tfd.JointDistributionSequential([d[0]]),
    }
    for name, make in made.items():
        a, b = make(ours), make(theirs)
        points = {"flow": np.abs(x)[:, None], "product": x[:, None] * np.ones((3, 1), np.float32)}
        value = [x] if name == "joint" else points.get(name, x)
        close(a.log_prob(value), b.log_prob(value), rtol=1e-3)
        assert jax.tree.leaves(a.sample(2, seed=KEY))[0].shape[0] == 2
    assert isinstance(ours.experimental_default_event_space_bijector(), tfb.Identity)
    assert set(type(ours).parameter_properties()) == {"gaussian"}
    assert tuple(ours.copy(name="other").batch_shape) == (3,)


def test_tfp_slices_what_holds_gaussians_and_programs_take_them():
    module = adapter("tfp")
    tfd, tfb = module.tfd, module.tfb
    d = module.to_tfp(gj.from_scale(jnp.arange(6.0).reshape(3, 2), jnp.ones(2)))
    x = jnp.ones(2)
    of_all = d.log_prob(x)
    close(tfd.TransformedDistribution(d, tfb.Shift(0.0))[1].log_prob(x), of_all[1])
    close(tfd.Independent(d, 1)[...].log_prob(x), jnp.sum(of_all))
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=jnp.zeros((1, 3))), d[None])
    close(mixture[0].log_prob(x), mixture.log_prob(x)[0])
    again = jax.jit(lambda d: d)(d)
    assert (tuple(again.batch_shape), again.dtype) == ((3,), jnp.float32)
    each = module.to_tfp(gj.broadcast_to(d.gaussian, (3,)))
    close(jax.vmap(lambda d: d.log_prob(x))(each), of_all)
    slope = jax.grad(lambda d: jnp.sum(d.log_prob(x)))(d)
    close(slope.gaussian.mean, x - d.gaussian.mean)
    with pytest.raises(NotImplementedError, match="independent Laplaces"):
        d.kl_divergence(tfd.Independent(tfd.Laplace(x, 1.0), 1))


@pytest.mark.filterwarnings("ignore:shape requires:DeprecationWarning")  # of TFP with JAX 0.12
def test_hamiltonian_monte_carlo_of_tfp_finds_the_moments_of_a_gaussian():
    module = adapter("tfp")
    g, mean, dense = gaussian("cholesky", d=2)
    d, mcmc = module.to_tfp(g), module.tfp.mcmc
    kernel = mcmc.HamiltonianMonteCarlo(d.log_prob, step_size=0.4, num_leapfrog_steps=4)
    run = jax.jit(
        lambda key: mcmc.sample_chain(
            2000, jnp.zeros((8, 2)), kernel=kernel, num_burnin_steps=200, trace_fn=None, seed=key
        )
    )
    draws = np.asarray(run(KEY)).reshape(-1, 2)
    assert np.all(np.abs(draws.mean(0) - mean) < 0.1 * np.sqrt(np.diag(dense)))
    np.testing.assert_allclose(np.cov(draws.T), dense, rtol=0.15, atol=0.1)


def test_normals_of_tfp_are_gaussians():
    module = adapter("tfp")
    tfd, rng = module.tfd, np.random.default_rng(3)
    matrix, loc = jnp.asarray(rng.normal(size=(3, 3)), jnp.float32), jnp.arange(3.0)
    normals = [
        tfd.MultivariateNormalDiag(loc, jnp.array([1.0, -2.0, 3.0])),
        tfd.MultivariateNormalTriL(loc, jnp.tril(matrix)),
        tfd.MultivariateNormalFullCovariance(loc, matrix @ matrix.T + jnp.eye(3)),
        tfd.MultivariateNormalDiagPlusLowRank(loc, jnp.ones(3), matrix[:, :1]),
        tfd.MultivariateNormalDiagPlusLowRankCovariance(loc, jnp.ones(3), matrix[:, :1]),
        tfd.Independent(tfd.Normal(loc, 2.0), 1),
        tfd.Sample(tfd.Normal(1.0, 2.0), 3),
    ]
    standard = module.to_tfp(gj.standard(3))
    for d in normals:
        g = module.from_tfp(d)
        x = d.sample(4, seed=KEY)
        close(gj.log_prob(g, x), d.log_prob(x), rtol=1e-3, atol=1e-3)
        close(d.kl_divergence(standard), gj.kl_divergence(g, gj.standard(3)))
    assert module.from_tfp(tfd.Normal(jnp.zeros(2), 1.0)).batch_shape == (2,)
    with pytest.raises(TypeError, match="must be a normal distribution of TFP"):
        module.from_tfp(tfd.Gamma(1.0, 1.0))
    with pytest.raises(TypeError, match="independent Gammas"):
        module.from_tfp(tfd.Independent(tfd.Gamma(jnp.ones(2), 1.0), 1))
    with pytest.raises(ValueError, match="one event axis"):
        module.from_tfp(tfd.Independent(tfd.Normal(jnp.zeros((2, 3)), 1.0), 2))
    with pytest.raises(TypeError, match="g must be a Gaussian"):
        module.to_tfp(tfd.Normal(0.0, 1.0))


# flowjax -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_a_base_of_flowjax(kind):
    module = adapter("flowjax")
    g, mean, dense = gaussian(kind)
    d = module.to_flowjax(g)
    assert (d.shape, d.cond_shape) == ((4,), None)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    close(d.log_prob(x), module.dist.MultivariateNormal(mean, dense).log_prob(x))
    draws, value = d.sample_and_log_prob(KEY, (6, 2))
    assert draws.shape == (6, 2, 4)
    close(value, d.log_prob(draws))
    close(gj.covariance(module.from_flowjax(d)), dense)


def test_a_flow_with_a_gaussian_base_is_fitted_and_leaves_the_base_as_it_is():
    module = adapter("flowjax")
    flows, train = (importlib.import_module(f"flowjax.{name}") for name in ("flows", "train"))
    law = gj.from_covariance(jnp.array([1.0, -1.0]), jnp.array([[2.0, 1.2], [1.2, 1.0]]))
    data = jax.nn.softplus(gj.sample(jax.random.key(1), law, (600,)))
    g = gj.from_low_rank(jnp.zeros(2), jnp.ones(2), jnp.ones((2, 1)))
    found = {}
    for make in (module.to_flowjax, module.to_learnable_flowjax):
        flow = flows.coupling_flow(KEY, base_dist=make(g), flow_layers=1, nn_width=8)
        before = jnp.mean(flow.log_prob(data))
        flow, _ = train.fit_to_data(
            KEY, flow, data, max_epochs=3, learning_rate=0.03, show_progress=False
        )
        assert jnp.mean(flow.log_prob(data)) > before + 0.1
        found[make.__name__] = module.from_flowjax(flow.base_dist)
    for x, y in zip(jax.tree.leaves(found["to_flowjax"]), jax.tree.leaves(g), strict=True):
        np.testing.assert_array_equal(x, y)
    assert gj.kl_divergence(found["to_learnable_flowjax"], g) > 1e-4
    standard = module.from_flowjax(module.to_learnable_flowjax(gj.standard(2)))
    close(gj.kl_divergence(standard, gj.standard(2)), 0)


def test_normals_of_flowjax_are_gaussians_and_batches_are_refused():
    module = adapter("flowjax")
    dist, matrix = module.dist, jnp.array([[2.0, 1.0], [1.0, 2.0]])
    for d in (
        dist.StandardNormal((2,)),
        dist.Normal(jnp.arange(2.0), 3.0),
        dist.MultivariateNormal(jnp.arange(2.0), matrix),
    ):
        x = d.sample(KEY, (4,))
        close(gj.log_prob(module.from_flowjax(d), x), d.log_prob(x))
    assert module.from_flowjax(dist.Normal(1.0, 2.0)).dim == 1
    with pytest.raises(TypeError, match="must be a normal distribution of flowjax"):
        module.from_flowjax(dist.Gamma(1.0, 1.0))
    with pytest.raises(ValueError, match="must have one axis"):
        module.from_flowjax(dist.StandardNormal((2, 3)))
    with pytest.raises(ValueError, match=r"got batch shape \(3,\)"):
        module.to_flowjax(gj.from_scale(jnp.zeros((3, 2)), jnp.ones(2)))


# lineax ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_a_positive_operator_of_lineax(kind):
    module = adapter("lineax")
    lineax = module.lineax
    g, v, dense = gaussian(kind)
    operator = module.to_lineax(g)
    close(operator.mv(v), dense @ v)
    close(operator.as_matrix(), dense)
    close(operator.logdet(), np.linalg.slogdet(dense)[1])
    close(lineax.diagonal(operator), np.diag(dense))
    assert lineax.is_symmetric(operator)
    assert lineax.is_positive_semidefinite(operator)
    assert lineax.is_diagonal(operator) == (kind in ("diagonal", "isotropic"))
    assert operator.T is operator
    expected = np.linalg.solve(dense, v)
    for solver in (module.StructuredSolver(), lineax.CG(1e-6, 1e-6)):
        close(lineax.linear_solve(operator, v, solver).value, expected, rtol=1e-3, atol=1e-4)


def test_operators_of_lineax_compose_and_solves_have_gradients():
    module = adapter("lineax")
    lineax = module.lineax
    g, v, dense = gaussian("low_rank")
    operator = module.to_lineax(g.cov)
    both = operator + lineax.IdentityLinearOperator(operator.in_structure())
    solution = lineax.linear_solve(both, v, lineax.AutoLinearSolver(well_posed=True)).value
    close(solution, np.linalg.solve(dense + np.eye(4), v))
    close((2.0 * operator).mv(v), 2 * dense @ v)

    def total(cov, solver):
        return jnp.sum(lineax.linear_solve(module.to_lineax(cov), v, solver).value)

    found = jax.grad(total)(g.cov, module.StructuredSolver())
    expected = jax.grad(lambda cov: jnp.sum(gj.solve(cov, v)))(g.cov)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        close(a, b, rtol=1e-3, atol=1e-4)
    with pytest.raises(TypeError, match="operator must be a CovarianceOperator"):
        lineax.linear_solve(both, v, module.StructuredSolver())


def test_lineax_traces_late_and_in_maps_over_loops_what_kernels_split_over_devices():
    """A solve is traced when its program is lowered, and `vmap` maps over the loop in it then."""
    module = adapter("lineax")
    lineax, cg = module.lineax, module.lineax.CG(1e-6, 1e-6)
    g, v, dense = gaussian("precision")

    def solved(cov):
        return lineax.linear_solve(module.to_lineax(cov), v, cg, throw=False).value

    found = jax.jit(jax.vmap(solved))(jax.tree.map(lambda x: jnp.stack([x, x]), g.cov))
    close(found, np.stack([np.linalg.solve(dense, v)] * 2), rtol=1e-3, atol=1e-3)


def test_operators_of_lineax_become_covariances():
    module = adapter("lineax")
    lineax, matrix = module.lineax, jnp.array([[2.0, 1.0], [1.0, 2.0]])
    tagged = lineax.MatrixLinearOperator(matrix, lineax.positive_semidefinite_tag)
    cov = module.from_lineax(tagged)
    close(gj.covariance(gj.Gaussian(jnp.zeros(2), cov)), matrix)
    diagonal = lineax.DiagonalLinearOperator(jnp.array([1.0, 4.0]))
    unit = lineax.IdentityLinearOperator(jax.ShapeDtypeStruct((2,), jnp.float32))
    tagged = lineax.TaggedLinearOperator(diagonal, lineax.positive_semidefinite_tag)
    for operator, scale in ((diagonal, [1, 2]), (unit, [1, 1]), (tagged, [1, 2])):
        close(module.from_lineax(operator).scale, scale)
    with pytest.raises(TypeError, match="must be positive semidefinite"):
        module.from_lineax(lineax.MatrixLinearOperator(matrix))
    with pytest.raises(ValueError, match=r"got batch shape \(3,\)"):
        module.to_lineax(gj.Diagonal(jnp.ones((3, 2))))


# BlackJAX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_a_metric_of_blackjax(kind):
    """As BlackJAX's own of the dense matrix, but for the choice of a root."""
    module = adapter("blackjax")
    metrics = importlib.import_module("blackjax.mcmc.metrics")
    g, p, dense = gaussian(kind)
    ours, theirs = module.to_metric(g), metrics.gaussian_euclidean(jnp.asarray(dense, jnp.float32))
    momentum = {"a": jnp.asarray(p[:1]), "b": jnp.asarray(p[1:])}
    close(ours.kinetic_energy(momentum), theirs.kinetic_energy(momentum))
    rng = np.random.default_rng(1)
    for _ in range(10):
        left, right, total = (jnp.asarray(rng.normal(size=4), jnp.float32) for _ in range(3))
        assert ours.check_turning(left, right, total) == theirs.check_turning(left, right, total)
    basis = jnp.eye(4)
    position = jnp.zeros(4)

    def matrix(inv, trans):
        columns = [ours.scale(position, e, inv=inv, trans=trans) for e in basis]
        return np.asarray(jnp.stack(columns, axis=1), float)

    root = matrix(inv=True, trans=False)
    close(root @ root.T, dense)
    close(matrix(inv=True, trans=True), root.T)
    close(matrix(inv=False, trans=True) @ root, np.eye(4))
    close(matrix(inv=False, trans=False), matrix(inv=False, trans=True).T)
    momenta = jax.vmap(lambda key: ours.sample_momentum(key, position))(jax.random.split(KEY, 4000))
    whitened = np.asarray(momenta) @ root  # Cᵀ p is standard normal
    assert stats.kstest(np.sum(whitened**2, axis=1), "chi2", (4,)).pvalue > 1e-6


@pytest.mark.parametrize("kind", ["diagonal", "low_rank", "cholesky"])
def test_arrays_for_blackjax_are_the_same_metric(kind):
    module = adapter("blackjax")
    metrics = importlib.import_module("blackjax.mcmc.metrics")
    g, p, dense = gaussian(kind)
    arrays = module.to_inverse_mass_matrix(g)
    close(metrics.default_metric(arrays).kinetic_energy(jnp.asarray(p)), 0.5 * p @ dense @ p)
    back = gj.Gaussian(jnp.zeros(4), module.from_inverse_mass_matrix(arrays))
    close(gj.covariance(back), dense)
    expected = {"diagonal": (4,), "cholesky": (4, 4)}
    if kind == "low_rank":
        assert isinstance(arrays, metrics.LowRankInverseMassMatrix)
    else:
        assert arrays.shape == expected[kind]


def test_what_is_no_inverse_mass_matrix_of_blackjax_is_refused():
    module = adapter("blackjax")
    convert, eye = module.from_inverse_mass_matrix, jnp.eye(3)
    many = module.LowRankInverseMassMatrix(jnp.ones((2, 3)), eye[None, :, :1], jnp.ones((2, 1)))
    for wrong in (jnp.stack([eye, eye]), 2.0, many):
        with pytest.raises(ValueError, match=r"must have shape \(d,\).*, got \("):
            convert(wrong)
    with pytest.raises(ValueError, match="must be finite and not negative"):
        convert(jnp.array([-1.0, 4.0]))
    with pytest.raises(TypeError, match="matrix must be a real array"):
        convert(lambda momentum: momentum)
    stacked = jax.vmap(lambda m: convert(m).lower)(jnp.stack([eye, 4 * eye]))
    np.testing.assert_array_equal(stacked[1], 2 * eye)
    with pytest.raises(ValueError, match=r"got batch shape \(5,\)"):
        module.to_metric(gj.from_scale(jnp.zeros((5, 2)), jnp.ones(2)))


def test_nuts_of_blackjax_samples_covariances_by_their_vectors():
    """A Wishart law of Σ in two dimensions, whose mean is ν S, by a vector and its Jacobian."""
    module, blackjax = adapter("blackjax"), pytest.importorskip("blackjax")
    degrees, scale = 6, jnp.array([[1.0, 0.5], [0.5, 2.0]])

    def log_density(vector):
        lower = pz.lower_from_vector(vector)
        log_det, trace = (
            2 * jnp.sum(jnp.log(jnp.diag(lower))),
            jnp.sum(jnp.linalg.inv(scale) * (lower @ lower.T)),
        )
        jacobian = pz.lower_log_jacobian(vector) + pz.covariance_log_jacobian(lower)
        return 0.5 * (degrees - 3) * log_det - 0.5 * trace + jacobian

    metric = module.to_metric(gj.from_scale(jnp.zeros(3), jnp.array([0.3, 1.0, 0.3])))
    nuts = blackjax.nuts(log_density, 0.8, metric)

    def step(state, key):
        state, info = nuts.step(key, state)
        return state, (state.position, info.is_divergent)

    run = jax.jit(lambda keys: jax.lax.scan(step, nuts.init(jnp.array([0.5, 0.0, 0.5])), keys)[1])
    vectors, divergent = run(jax.random.split(KEY, 3000))
    lower = pz.lower_from_vector(vectors[200:])
    mean = np.mean(lower @ jnp.swapaxes(lower, 1, 2), axis=0)
    assert np.mean(divergent) < 0.01
    np.testing.assert_allclose(mean, degrees * scale, rtol=0.1, atol=0.3)


# Transformations ---------------------------------------------------------------------------------


def test_a_bad_row_stays_alone_in_vmaps_of_vmaps_of_every_adapter():
    scale = jnp.ones((2, 3, 4)).at[1, 2].set(jnp.nan)
    factor = 0.5 * jnp.ones((2, 3, 4, 1))
    x = jnp.arange(4.0)
    bad = np.zeros((2, 3), bool)
    bad[1, 2] = True

    def of_tfp(g):
        return adapter("tfp").to_tfp(g).log_prob(x)

    def of_flowjax(g):
        return adapter("flowjax").to_flowjax(g).log_prob(x)

    def of_lineax(g):
        module = adapter("lineax")
        operator = module.to_lineax(g)
        solution = module.lineax.linear_solve(operator, x, module.StructuredSolver(), throw=False)
        return jnp.sum(solution.value) + operator.logdet()

    def of_blackjax(g):
        return adapter("blackjax").to_metric(g).kinetic_energy(x)

    for function in (of_tfp, of_flowjax, of_lineax, of_blackjax):

        def value(s, w, function=function):
            return function(gj.Gaussian(jnp.zeros(4), gj.LowRank(s, w)))

        found = jax.jit(jax.vmap(jax.vmap(value)))(scale, factor)
        np.testing.assert_array_equal(np.isnan(found), bad, err_msg=function.__name__)
        one = value(scale[0, 0], factor[0, 0])
        close(found[~bad], np.full(5, one))
