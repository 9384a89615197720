"""Pictures show what they say: points of curves are where the mathematics has them."""

import jax
import numpy as np
import pytest

import gaussjax as gj

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plots = pytest.importorskip("gaussjax.plots")
G = gj.from_cholesky([1.0, 2.0, 3.0], [[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 1.0, 2.0]])


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    matplotlib.pyplot.close("all")


def test_ellipses_are_where_the_distance_is_that_of_chi_square():
    g = gj.marginal(G, [0, 1])
    ax = plots.ellipses(g, levels=(0.9,), labels=["a", "b"])
    points = np.stack(ax.lines[0].get_data(), axis=1).astype(np.float32)
    np.testing.assert_allclose(gj.mahalanobis(g, points), -2 * np.log(0.1), rtol=1e-4)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_a_corner_has_densities_on_the_diagonal_and_conditionals_over_them():
    samples = gj.sample(jax.random.key(0), G, (50,))
    figure = plots.corner(G, samples=samples, given={0: 2.0})
    assert len(figure.axes) == 6
    x, density = figure.axes[5].lines[0].get_data()
    np.testing.assert_allclose(np.trapezoid(density, x), 1.0, atol=2e-3)
    x, density = figure.axes[5].lines[1].get_data()
    law = gj.condition(G, [0], [2.0])
    np.testing.assert_allclose(x[np.argmax(density)], law.mean[1], atol=0.1)
    assert len(figure.axes[0].lines) == 1  # what is given has no law any more


def test_correlations_are_the_numbers_of_the_picture():
    ax = plots.correlations(G)
    np.testing.assert_allclose(ax.images[0].get_array(), gj.correlation(G))


def test_a_batch_and_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="one Gaussian of dimension 2, got dimension 3"):
        plots.ellipses(G)
    with pytest.raises(ValueError, match=r"batch shape \(1,\)"):
        plots.corner(gj.reshape(G, (1,)))
    with pytest.raises(ValueError, match="labels must be 3"):
        plots.correlations(G, labels=["a"])
    with pytest.raises(ValueError, match="samples must have shape"):
        plots.corner(G, samples=np.zeros((5, 2)))
