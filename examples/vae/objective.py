"""The bounds on log p(x), in nats: summed over pixels and latents, averaged over the batch."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.scipy.special import gammaln, logsumexp

import gaussjax as gj
from examples.vae.model import VAE

DECODED = 20_000  # images that an evaluation decodes at a time, at most


class Terms(NamedTuple):
    """Distortion −E_q[log p(x|z)] and rate KL(q(z|x)‖p(z)), per image."""

    distortion: Array
    rate: Array


def log_likelihood(logits: Array, x: Array, trials: int) -> Array:
    """log Binomial(x; trials, sigmoid(logits)), summed over pixels."""
    share = x / trials
    losses = optax.sigmoid_binary_cross_entropy(logits, share)
    log_choose = gammaln(trials + 1.0) - gammaln(x + 1.0) - gammaln(trials - x + 1.0)
    return jnp.sum(log_choose - trials * losses, axis=-1)


def elbo_terms(model: VAE, x: Array, key: Array) -> Terms:
    """Both terms of the negative ELBO, with one sample of z; the rate in closed form."""
    q = model.posterior(x)
    z = gj.sample(key, q)
    distortion = -log_likelihood(model.logits(z), x, model.trials)
    return Terms(distortion, gj.kl_divergence(q, model.prior()))


def log_weights(model: VAE, x: Array, key: Array, k: int) -> Array:
    """log p(x, z) − log q(z|x) for k samples of z, `(k, batch)`."""
    q = model.posterior(x)
    z, log_q = gj.sample_and_log_prob(key, q, (k,))
    log_p = log_likelihood(model.logits(z), x, model.trials) + gj.log_prob(model.prior(), z)
    return log_p - log_q


def log_mean_exp(weights: Array) -> Array:
    """The importance-weighted bound on log p(x) from log weights `(k, …)`."""
    return logsumexp(weights, axis=0) - math.log(len(weights))


def training_loss(model: VAE, x: Array, key: Array, beta: Array) -> tuple[Array, Terms]:
    """What is minimised, and the terms of the ELBO beside it.

    The rate is weighted by `beta` and free up to `free_bits`; with `iwae_k` > 1 the loss is the
    importance-weighted bound instead.
    """
    terms = elbo_terms(model, x, key)
    if model.config.iwae_k > 1:
        bound = log_mean_exp(log_weights(model, x, key, model.config.iwae_k))
        return -jnp.mean(bound), terms
    rate = jnp.maximum(jnp.mean(terms.rate), model.config.free_bits)
    return jnp.mean(terms.distortion) + beta * rate, terms


class Evaluation(NamedTuple):
    """Test figures, in nats per image."""

    negative_elbo: Array
    nll: Array
    rate: Array
    active_units: Array


def evaluate(model: VAE, x: Array, key: Array, k: int) -> Evaluation:
    """−ELBO and K-sample importance-weighted NLL, the rate, and the active units.

    A unit is active when the variance of its posterior mean over the images exceeds 0.01 (Burda et
    al. 2015). The −ELBO averages over the same K samples; they are drawn in groups to bound memory.
    """
    q = model.posterior(x)
    group = math.gcd(k, min(50, max(1, DECODED // len(x))))
    keys = jax.random.split(key, k // group)
    weights = jax.lax.map(lambda one: log_weights(model, x, one, group), keys).reshape(k, -1)
    return Evaluation(
        -jnp.mean(weights),
        -jnp.mean(log_mean_exp(weights)),
        jnp.mean(gj.kl_divergence(q, model.prior())),
        jnp.sum(jnp.var(gj.mean(q), axis=0) > 0.01),
    )
