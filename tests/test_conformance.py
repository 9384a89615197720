"""Every structure, and one that a user wrote, passes the shipped conformance suite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DENSE, STRUCTURES, random_lower
from compiling import quick_jax

import gaussjax as gj
from gaussjax.covariances import Covariance, leaf, structure
from gaussjax.testing import check_covariance

# Dense kernels change at 16; the others have nothing that depends on the size, and are of one
# dimension in float64.
CASES = [(kind, d) for kind in STRUCTURES for d in (1, 6, 17) if d == 6 or kind in DENSE]


@pytest.fixture
def alone(monkeypatch):
    """Compiled quickly, and without other structures: `test_pairs` has every pair of ours."""
    monkeypatch.setattr("gaussjax.testing.jax", quick_jax)
    monkeypatch.setattr("gaussjax.testing._partners", lambda *_: [])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("kind", "d"), CASES)
def test_structure_agrees_with_dense_linear_algebra(kind, d):
    cov, dense = STRUCTURES[kind](np.random.default_rng(d), d, np.float32)
    check_covariance(lambda: cov, dense)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", STRUCTURES)
def test_structure_agrees_in_float64(kind):
    d = 3 if kind in DENSE else 1
    with jax.enable_x64(True):
        cov, dense = STRUCTURES[kind](np.random.default_rng(3), d, np.float64)
        assert gj.covariance(gj.Gaussian(jnp.zeros(d), cov)).dtype == jnp.float64
        check_covariance(lambda: cov, dense)


@structure
class Newcomer(Covariance):
    """Σ = F Fᵀ with F upper triangular: only what the protocol requires."""

    upper: jax.Array = leaf(rank=2)

    @property
    def dim(self):
        return self.upper.shape[-1]

    def color(self, noise):
        return jnp.matmul(jnp.triu(self.upper), noise, precision="highest")

    def whiten(self, vector):
        column = jax.scipy.linalg.solve_triangular(self.upper, vector[:, None], lower=False)
        return column[:, 0]

    def logdet(self):
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.upper)))


@pytest.mark.parametrize("d", [1, 3])
def test_a_structure_with_only_the_required_members_has_everything(d):
    upper = random_lower(np.random.default_rng(d), d).T
    check_covariance(
        lambda: Newcomer(jnp.asarray(upper)), upper.astype(float) @ upper.T.astype(float)
    )


@structure
class Wrong(gj.Diagonal):
    """A diagonal whose log-determinant forgets the square."""

    def logdet(self):
        return jnp.sum(jnp.log(self.scale))


def test_the_suite_catches_a_wrong_logdet():
    scale = np.array([1.0, 2.0], np.float32)
    with pytest.raises(AssertionError, match="log_prob"):
        check_covariance(lambda: Wrong(jnp.asarray(scale)), np.diag(scale**2))


@structure
class Transposed(gj.Cholesky):
    """A Cholesky structure that samples with Lᵀ for L."""

    def color(self, noise):
        return jnp.matmul(jnp.tril(self.lower).T, noise, precision="highest")


def test_the_suite_catches_a_transposed_sampler():
    lower = random_lower(np.random.default_rng(0), 3)
    with pytest.raises(AssertionError, match="color"):
        check_covariance(lambda: Transposed(jnp.asarray(lower)), lower @ lower.T)


def test_structures_with_equal_fields_have_unequal_tree_structures():
    # jax.tree_util.register_dataclass fails this, and jit then mixes up their programs.
    cholesky, precision = (jax.tree.structure(c(1.0)) for c in (gj.Cholesky, gj.PrecisionCholesky))
    assert cholesky != precision
    assert cholesky == jax.tree.structure(gj.Cholesky(2.0))


TRACED = []


@structure
class Traced(Newcomer):
    """Says when its code is run by Python: in eager calls, once for every shape."""

    def logdet(self):
        TRACED.append(self.dim)
        return super().logdet()


def test_eager_calls_do_not_trace_again():
    for scale in (1.0, 2.0, 3.0):
        g = gj.Gaussian(jnp.zeros(2), Traced(scale * jnp.eye(2)))
        np.testing.assert_allclose(gj.entropy(g), 2 * np.log(scale) + 1 + np.log(2 * np.pi), 1e-6)
    assert TRACED == [2]
