"""A linear VAE with a full-covariance posterior is probabilistic PCA, whose optimum is known.

With x = W z + b + σ ε, the likelihood is greatest where W Wᵀ + σ² I keeps the sample covariance's
leading eigenvalues and averages the others; the posterior of z is a Gaussian with one covariance
for every x, which is not diagonal unless W's columns are orthogonal. The bound is then log p(x).

Source: Tipping & Bishop, Journal of the Royal Statistical Society B 61 (1999), §3.2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gaussjax as gj
from examples.vae.model import bounded_gaussian

POINTS, PIXELS, LATENTS, STEPS = 500, 6, 2, 4000


class Trained(NamedTuple):
    model: gj.Gaussian
    posterior: gj.Gaussian
    bound: jax.Array
    x: jax.Array


@pytest.fixture(scope="module", autouse=True)
def default_promotion():
    """optax needs JAX's default promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(PIXELS, LATENTS)) * [2.0, 1.0]
    latent, noise = rng.normal(size=(POINTS, LATENTS)), rng.normal(size=(POINTS, PIXELS))
    return latent @ loadings.T + 0.5 * noise + np.arange(PIXELS)


@pytest.fixture(scope="module")
def trained(x):
    x = jnp.asarray(x, jnp.float32)
    keys = jax.random.split(jax.random.key(0))
    start = {
        "loadings": jax.random.normal(keys[0], (PIXELS, LATENTS)),
        "bias": jnp.zeros(PIXELS),
        "log_scale": jnp.zeros(()),
        "encoder": 0.1 * jax.random.normal(keys[1], (PIXELS, LATENTS)),
        "head": jnp.zeros(gj.parametrize.gaussian_size(LATENTS)),
    }
    rate = optax.cosine_decay_schedule(0.03, STEPS)
    optimizer = optax.adam(rate)

    @jax.jit
    def train(parameters):
        def step(carry, _):
            parameters, state = carry
            gradient = jax.grad(lambda p: -jnp.mean(bound(p, x)))(parameters)
            update, state = optimizer.update(gradient, state)
            return (optax.apply_updates(parameters, update), state), None

        carry = (parameters, optimizer.init(parameters))
        return jax.lax.scan(step, carry, length=STEPS)[0][0]

    parameters = train(start)
    loadings, variance = parameters["loadings"], jnp.exp(2 * parameters["log_scale"])
    covariance = loadings @ loadings.T + variance * jnp.eye(PIXELS)
    model = gj.from_covariance(parameters["bias"], covariance)
    return Trained(model, encode(parameters, x), bound(parameters, x), x)


def encode(parameters, x):
    """q(z|x): a mean linear in x, and one full covariance, through the example's head."""
    mean = (x - parameters["bias"]) @ parameters["encoder"]
    vector = jnp.broadcast_to(parameters["head"], (*x.shape[:-1], len(parameters["head"])))
    return bounded_gaussian(vector.at[..., :LATENTS].add(mean), LATENTS, "full")


def bound(parameters, x):
    """ELBO of each x. Noise ±√d eᵢ has mean 0 and covariance I: exact for a quadratic."""
    posterior = encode(parameters, x)
    axes = LATENTS**0.5 * jnp.eye(LATENTS)
    z = gj.color(posterior, jnp.concatenate([axes, -axes])[:, None])
    decoded = z @ parameters["loadings"].T + parameters["bias"]
    scale = jnp.exp(parameters["log_scale"])
    likelihood = gj.Gaussian(decoded, gj.Isotropic(scale, PIXELS))
    distortion = -jnp.mean(gj.log_prob(likelihood, x), axis=0)
    return -distortion - gj.kl_divergence(posterior, gj.standard(LATENTS))


def closed_form(x):
    """The pPCA covariance of greatest likelihood, and that likelihood per point, in float64."""
    sample = np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(sample)
    noise = values[:-LATENTS].mean()
    kept = np.concatenate([np.full(PIXELS - LATENTS, noise), values[-LATENTS:]])
    covariance = (vectors * kept) @ vectors.T
    trace = np.trace(np.linalg.solve(covariance, sample))
    return covariance, -0.5 * (PIXELS * np.log(2 * np.pi) + np.log(kept).sum() + trace)


def test_a_linear_vae_learns_the_closed_form_ppca(trained, x):
    covariance, _ = closed_form(x)
    np.testing.assert_allclose(trained.model.mean, x.mean(0), atol=2e-3)
    learned = np.asarray(gj.covariance(trained.model))
    np.testing.assert_allclose(learned, covariance, atol=2e-3 * np.trace(covariance))


def test_its_bound_is_the_greatest_likelihood(trained, x):
    _, likelihood = closed_form(x)
    assert float(jnp.mean(trained.bound)) == pytest.approx(likelihood, abs=1e-3)


def test_its_bound_is_the_log_likelihood_of_every_point(trained):
    exact = gj.log_prob(trained.model, trained.x)
    np.testing.assert_allclose(trained.bound, exact, atol=5e-3)


def test_its_posterior_is_correlated(trained):
    """So that a diagonal one, at these parameters, would not reach the bound."""
    covariance = gj.covariance(trained.posterior)[0]
    correlation = covariance[0, 1] / jnp.sqrt(covariance[0, 0] * covariance[1, 1])
    assert abs(float(correlation)) > 0.1
