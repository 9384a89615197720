"""A policy that is bounded by tanh: its density at saturation, and the example that trains one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gaussjax as gj
from examples import policy

KEY = jax.random.key(0)
# In the middle, where tanh rounds to one in float32, far beyond it, and where u² is large too.
MEANS = [0.0, 9.0, -15.0, 100.0, 1e4]


def squashed_by_distrax(g, n):
    return policy.squashed(g).sample_and_log_prob(seed=KEY, sample_shape=(n,))


def squashed_by_numpyro(g, n):
    dist = pytest.importorskip("numpyro.distributions")
    adapter = pytest.importorskip("gaussjax.adapters.numpyro")
    tanh = [  # 2 / (1 + e⁻²ᵘ) − 1, as NumPyro has no transform of that name
        dist.transforms.AffineTransform(0.0, 2.0),
        dist.transforms.SigmoidTransform(),
        dist.transforms.AffineTransform(-1.0, 2.0, domain=dist.constraints.unit_interval),
    ]
    law = dist.TransformedDistribution(adapter.to_numpyro(g), tanh)
    actions, between = law.sample_with_intermediates(KEY, (n,))
    return actions, law.log_prob(actions, between)


BOTH = {"distrax": squashed_by_distrax, "numpyro": squashed_by_numpyro}


@pytest.mark.parametrize("library", BOTH)
@pytest.mark.parametrize("mean", MEANS)
def test_the_density_of_a_squashed_gaussian_keeps_its_digits_at_saturation(mean, library):
    """Against float64 at the same u, of which the action has lost all but the sign."""
    lower = np.array([[0.5, 0.0], [0.3, 0.8]], np.float32)
    g = gj.from_cholesky(jnp.full(2, mean), lower)
    actions, log_prob = BOTH[library](g, 50)
    u = np.asarray(gj.sample(KEY, g, (50,)), float)
    np.testing.assert_allclose(actions, np.tanh(u), rtol=1e-5, atol=1e-6)
    whitened = np.linalg.solve(lower.astype(float), (u - mean).T)
    normal = -0.5 * np.sum(whitened**2, 0) - np.log(np.prod(np.diag(lower))) - np.log(2 * np.pi)
    slope = 2 * (np.log(2) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))
    # u − μ cancels in the oracle, as u has been rounded; the library takes the noise itself.
    rounding = 8 * np.abs(mean) * np.finfo(np.float32).eps / lower[0, 0]
    np.testing.assert_allclose(
        log_prob, normal - slope.sum(1), rtol=2e-6, atol=1e-5 + 10 * rounding
    )


@pytest.mark.parametrize("library", BOTH)
def test_gradients_of_a_saturated_policy_are_finite(library):
    def loss(mean, lower):
        actions, log_prob = BOTH[library](gj.Gaussian(mean, gj.Cholesky(lower)), 20)
        return jnp.mean(log_prob) + jnp.mean(actions)

    for mean in MEANS:
        slopes = jax.grad(loss, (0, 1))(jnp.full(2, mean), 0.5 * jnp.eye(2))
        assert all(np.all(np.isfinite(x)) for x in slopes)
    saturated = jax.grad(loss)(jnp.full(2, 100.0), 0.5 * jnp.eye(2))
    np.testing.assert_allclose(saturated, 2, rtol=1e-5)  # of −2 (log 2 − u), each coordinate


def test_a_policy_learns_within_its_trust_regions(capsys):
    report = policy.main(iterations=60)
    assert report.rewards[-1] > report.rewards[0] + 0.7
    assert np.all(np.asarray(report.mean_parts) < 3 * 0.05)
    assert np.all(np.asarray(report.covariance_parts) < 3 * 0.01)
    states = jax.random.uniform(jax.random.key(1), (500, 2), minval=-1, maxval=1)
    law = policy.latent(report.params, states)
    error = jnp.tanh(law.mean) - jnp.tanh(states @ policy.MAP.T)
    assert jnp.mean(error**2) < 0.02
    matrix = np.asarray(gj.covariance(law)).mean(0)
    assert matrix[0, 1] < -0.3 * np.sqrt(matrix[0, 0] * matrix[1, 1])  # as the reward is blind to
    assert "KL of covariances" in capsys.readouterr().out
