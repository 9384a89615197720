"""Vectors to factors and back, to rounding, for anything a network may emit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import gaussjax as gj
from gaussjax import parametrize as pz

PAIRS = {
    "lower": (pz.lower_from_vector, pz.vector_from_lower),
    "scaled": (pz.scaled_lower_from_vector, pz.vector_from_scaled_lower),
}
DIAGONALS = [pz.Exp(), pz.Softplus()]
vectors = hnp.arrays(np.float32, 6, elements=st.floats(-80, 80, width=32))


@pytest.mark.parametrize("diagonal", DIAGONALS, ids=["exp", "softplus"])
@pytest.mark.parametrize("form", PAIRS)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(vector=vectors)
def test_round_trip_is_exact_to_rounding_for_inputs_up_to_80(form, diagonal, vector):
    """eˣ at |x| = 80 has the relative error 80u, which the logarithm makes absolute again."""
    forward, backward = PAIRS[form]
    vector = np.where(np.abs(vector) < 1e-30, 0.0, vector).astype(np.float32)
    lower = forward(vector, diagonal=diagonal)
    assert np.all(np.isfinite(lower))
    diagonal_entries = np.diagonal(lower)
    assert np.all(diagonal_entries > 0)
    np.testing.assert_allclose(backward(lower, diagonal=diagonal), vector, rtol=2e-6, atol=2e-6)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(vector=hnp.arrays(np.float32, 6, elements=st.floats(-80, 80, width=32)))
def test_any_vector_gives_a_correlation_factor_and_back(vector):
    lower = np.asarray(pz.correlation_from_vector(vector))
    matrix = lower.astype(float) @ lower.T.astype(float)
    np.testing.assert_allclose(np.diag(matrix), 1.0, rtol=1e-6)
    assert np.all(np.diagonal(lower) > 0)
    np.testing.assert_allclose(pz.vector_from_correlation(lower), vector, rtol=1e-6, atol=1e-30)


def test_the_correlation_map_reaches_every_correlation_matrix():
    correlation = np.array([[1.0, 0.9, -0.3], [0.9, 1.0, 0.0], [-0.3, 0.0, 1.0]], np.float32)
    lower = gj.linalg.cholesky(correlation)
    again = pz.correlation_from_vector(pz.vector_from_correlation(lower))
    np.testing.assert_allclose(again, lower, atol=1e-6)


@pytest.mark.parametrize("diagonal", [pz.Exp(0.1), pz.Softplus(0.1)], ids=["exp", "softplus"])
def test_the_floor_keeps_the_diagonal_away_from_zero(diagonal):
    lower = pz.lower_from_vector(jnp.full(3, -80.0), diagonal=diagonal)
    assert jnp.all(jnp.diagonal(lower) >= 0.1)
    back = pz.vector_from_lower(
        pz.lower_from_vector(jnp.ones(3), diagonal=diagonal), diagonal=diagonal
    )
    np.testing.assert_allclose(back, np.ones(3), rtol=1e-5)


def test_the_scaled_form_separates_units_from_shape():
    vector = jnp.arange(6.0) / 10
    lower = pz.scaled_lower_from_vector(vector)
    rescaled = pz.scaled_lower_from_vector(vector.at[2].add(jnp.log(10.0)))  # second scale tenfold
    np.testing.assert_allclose(rescaled, lower * np.array([[1.0], [10.0], [1.0]]), rtol=1e-5)


def test_a_network_head_becomes_a_gaussian_with_gradients():
    size = pz.gaussian_size(3)
    assert size == 9
    head = jax.random.normal(jax.random.key(0), (5, size))

    def loss(head):
        return jnp.mean(gj.kl_divergence(pz.gaussian_from_vector(head, 3), gj.standard(3)))

    g = pz.gaussian_from_vector(head, 3)
    assert gj.batch_shape(g) == (5,)
    assert g.cov.lower.shape == (5, 3, 3)
    assert jnp.all(jnp.isfinite(jax.grad(loss)(head)))
    assert jnp.all(jnp.isfinite(jax.grad(loss)(jnp.full((5, size), -40.0))))


@pytest.mark.parametrize("form", PAIRS)
def test_packing_works_under_jit_and_vmap_and_in_batches(form):
    forward, backward = PAIRS[form]
    vector = jax.random.normal(jax.random.key(0), (4, 2, 6))
    lower = forward(vector)
    assert lower.shape == (4, 2, 3, 3)
    np.testing.assert_allclose(jax.vmap(jax.jit(forward))(vector), lower, rtol=1e-6)
    np.testing.assert_allclose(backward(lower), vector, rtol=1e-5, atol=1e-6)


# Forms -------------------------------------------------------------------------------------------

FORMS = {
    "isotropic": pz.IsotropicForm(),
    "diagonal": pz.DiagonalForm(),
    "low rank": pz.LowRankForm(2),
    "full": pz.FullForm(),
    "precision": pz.PrecisionForm(),
    "banded": pz.BandedForm(2),
    "wider than it is long": pz.BandedForm(5),
}
POSITIVE = {
    "exp": pz.Exp(),
    "exp with a floor": pz.Exp(0.1),
    "softplus": pz.Softplus(),
    "softplus with a floor": pz.Softplus(0.1),
    "bounded": pz.Bounded(0.01, 50.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_gaussian_of_each_form_becomes_its_vector_again(form):
    form, dim = FORMS[form], 4
    vector = jax.random.normal(jax.random.key(0), (3, pz.gaussian_size(dim, form)))
    g = pz.gaussian_from_vector(vector, dim, form=form)
    assert (g.batch_shape, g.dim, pz.form_of(g)) == ((3,), dim, form)
    np.testing.assert_allclose(pz.vector_from_gaussian(g), vector, rtol=1e-5, atol=1e-6)
    one = pz.gaussian_from_vector(vector[1], dim, form=form)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(g), strict=True):
        np.testing.assert_array_equal(x, y[1])
    assert jnp.all(jnp.isfinite(gj.log_prob(g, jnp.zeros(dim))))


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_of_any_form_starts_at_a_round_gaussian(form):
    cov = FORMS[form].isotropic(4, 0.5)
    np.testing.assert_allclose(gj.covariance(gj.Gaussian(jnp.zeros(4), cov)), 0.25 * np.eye(4))
    assert pz.form_of(gj.Gaussian(jnp.zeros(4), cov)) == FORMS[form]


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_no_dimension_have_no_entries(form):
    assert pz.gaussian_size(0, FORMS[form]) == 0
    g = pz.gaussian_from_vector(jnp.zeros((2, 0)), 0, form=FORMS[form])
    assert pz.vector_from_gaussian(g).shape == (2, 0)
    np.testing.assert_array_equal(
        pz.gaussian_log_jacobian(jnp.zeros((2, 0)), 0, form=FORMS[form]), 0
    )


def test_parts_with_other_batches_become_vectors_of_the_whole():
    g = gj.from_low_rank(jnp.zeros((5, 1, 3)), jnp.ones((4, 3)), jnp.ones((3, 1)))
    assert pz.vector_from_gaussian(g).shape == (5, 4, 9)


def test_what_no_vector_stands_for_is_refused_or_nan():
    toeplitz = gj.from_toeplitz(jnp.zeros(3), jnp.array([2.0, 1.0, 0.5]))
    with pytest.raises(
        TypeError, match=r"structures Isotropic, Diagonal, LowRank, .*, got Toeplitz: as_chol"
    ):
        pz.vector_from_gaussian(toeplitz)
    assert pz.vector_from_gaussian(gj.as_cholesky(toeplitz)).shape == (9,)
    with pytest.raises(ValueError, match="must have 6 entries"):
        pz.gaussian_from_vector(jnp.zeros(9), 3, form=pz.DiagonalForm())
    with pytest.raises(ValueError, match="rank must not be negative"):
        pz.LowRankForm(-1)
    for wrong in (pz.FullForm, "full"):
        with pytest.raises(TypeError, match=r"form must be a form, such as FullForm\(\), got "):
            pz.gaussian_size(3, wrong)
    with pytest.raises(ValueError, match="positive, finite and in order, got 2"):
        pz.Bounded(2.0, 1.0)
    scales = gj.Gaussian(jnp.zeros((2, 2)), gj.Diagonal(jnp.array([[1.0, -1.0], [1.0, 2.0]])))
    vector = pz.vector_from_gaussian(scales)
    assert jnp.all(jnp.isnan(vector[0]))
    np.testing.assert_allclose(vector[1], [0, 0, 0, np.log(2)], rtol=1e-6)
    unit = gj.from_scale([0.0], [1.0])
    assert jnp.isnan(pz.vector_from_gaussian(unit, diagonal=pz.Exp(2.0))[1])


@settings(derandomize=True, max_examples=60, deadline=None)
@given(x=hnp.arrays(np.float32, 4, elements=st.floats(-80, 80, width=32)))
def test_bounds_hold_for_anything_a_network_emits(x):
    bounded = pz.Bounded(0.01, 50.0)
    y = np.asarray(bounded(jnp.asarray(x)))
    assert np.all((y >= 0.01 * (1 - 1e-5)) & (y <= 50 * (1 + 1e-5)))
    assert np.all(np.isfinite(bounded.log_slope(jnp.asarray(x))))
    inside = np.abs(x) < 20
    np.testing.assert_allclose(bounded.inverse(jnp.asarray(y))[inside], x[inside], atol=2e-2)


# Jacobians ---------------------------------------------------------------------------------------


def slogdet(function, vector):
    """By automatic differentiation in float64, over as many results as there are entries."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        matrix = quick_jit(jax.jacfwd(function))(jnp.asarray(vector, jnp.float64))
        return np.linalg.slogdet(np.asarray(matrix))[1]


def below(matrix, offset=0):
    return matrix[jnp.tril_indices(len(matrix), offset)]


LOWER = {
    "lower": (pz.lower_log_jacobian, pz.lower_from_vector),
    "scaled": (pz.scaled_lower_log_jacobian, pz.scaled_lower_from_vector),
}


@pytest.mark.parametrize("positive", POSITIVE)
@pytest.mark.parametrize("name", LOWER)
def test_log_jacobians_of_triangles_are_those_of_the_maps(name, positive):
    (log_jacobian, forward), diagonal = LOWER[name], POSITIVE[positive]
    vector = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    expected = [slogdet(lambda v: below(forward(v, diagonal=diagonal)), v) for v in vector]
    np.testing.assert_allclose(log_jacobian(vector, diagonal=diagonal), expected, rtol=2e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_log_jacobian_of_the_correlation_map_keeps_its_digits(size):
    vector = (size * np.random.default_rng(1).normal(size=(2, 6))).astype(np.float32)
    expected = [slogdet(lambda v: below(pz.correlation_from_vector(v), -1), v) for v in vector]
    np.testing.assert_allclose(pz.correlation_log_jacobian(vector), expected, rtol=2e-5)


def test_the_log_jacobian_of_a_correlation_is_finite_where_squares_overflow():
    found = pz.correlation_log_jacobian([1e30])
    np.testing.assert_allclose(found, -1.5 * np.log(1e60), rtol=1e-6)
    gradient = jax.grad(pz.correlation_log_jacobian)(jnp.array([1e30]))
    np.testing.assert_allclose(gradient, [-3e-30], rtol=1e-5)


@pytest.mark.parametrize("positive", ["bounded", "softplus with a floor"])
@pytest.mark.parametrize("form", FORMS)
def test_log_jacobians_of_gaussians_are_those_of_mean_and_factor(form, positive):
    form, diagonal, dim = FORMS[form], POSITIVE[positive], 3
    vector = np.random.default_rng(2).normal(size=pz.gaussian_size(dim, form)).astype(np.float32)

    def numbers(v):
        g = pz.gaussian_from_vector(v, dim, form=form, diagonal=diagonal)
        return pz.vector_from_gaussian(g, diagonal=Same())

    found = pz.gaussian_log_jacobian(vector, dim, form=form, diagonal=diagonal)
    np.testing.assert_allclose(found, slogdet(numbers, vector), rtol=2e-5, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Same:
    """The numbers of a structure themselves."""

    def inverse(self, y):
        return y


@pytest.mark.parametrize("dim", [1, 3])
def test_log_jacobians_from_factors_to_matrices(dim):
    rng = np.random.default_rng(3)
    vector = rng.normal(size=pz.vector_size(dim)).astype(np.float32)
    lower = np.asarray(pz.lower_from_vector(vector))

    def covariance(entries):
        matrix = jnp.zeros((dim, dim), entries.dtype).at[jnp.tril_indices(dim)].set(entries)
        return below(matrix @ matrix.T)

    np.testing.assert_allclose(
        pz.covariance_log_jacobian(lower), slogdet(covariance, below(lower)), rtol=2e-5
    )

    def correlation(entries):  # of a row, the diagonal follows from those before it
        matrix = jnp.zeros((dim, dim), entries.dtype).at[jnp.tril_indices(dim, -1)].set(entries)
        matrix += jnp.diag(jnp.sqrt(1 - jnp.sum(matrix**2, axis=1)))
        return below(matrix @ matrix.T, -1)

    unit = np.asarray(pz.correlation_from_vector(vector[: pz.correlation_size(dim)]))[:dim, :dim]
    np.testing.assert_allclose(
        pz.correlation_matrix_log_jacobian(unit),
        slogdet(correlation, below(unit, -1)),
        rtol=2e-5,
        atol=1e-6,
    )


def test_a_density_of_covariances_integrates_to_one_over_vectors():
    """A Wishart's in one dimension, by quadrature: what Hamiltonian Monte Carlo walks on."""
    degrees, vector = 3, jnp.linspace(-12, 6, 20_001)[:, None]

    def log_density(v):
        lower = pz.lower_from_vector(v)
        matrix = np.square(np.asarray(lower[:, 0, 0], float))
        jacobian = pz.lower_log_jacobian(v) + pz.covariance_log_jacobian(lower)
        return stats.chi2(degrees).logpdf(matrix) + np.asarray(jacobian, float)

    total = np.trapezoid(np.exp(log_density(vector)), np.asarray(vector[:, 0], float))
    np.testing.assert_allclose(total, 1, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_row_stays_alone_in_vmaps_of_vmaps(form):
    form, dim = FORMS[form], 3
    size = pz.gaussian_size(dim, form)
    vector = jax.random.normal(jax.random.key(1), (2, 4, size)).at[1, 2].set(jnp.nan)

    def value(v):
        g = pz.gaussian_from_vector(v, dim, form=form)
        return pz.gaussian_log_jacobian(v, dim, form=form) + jnp.sum(pz.vector_from_gaussian(g))

    found = jax.jit(jax.vmap(jax.vmap(value)))(vector)
    bad = np.zeros((2, 4), bool)
    bad[1, 2] = True
    np.testing.assert_array_equal(np.isnan(found), bad)
    gradient = jax.vmap(jax.vmap(jax.grad(value)))(vector)
    assert np.all(np.isfinite(gradient[~bad]))
