"""Encoder, decoder and prior. The encoder's head is a Gaussian, by `gaussjax.parametrize`."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import gaussjax as gj
from examples.vae.config import Config
from gaussjax import parametrize

RANK = 2  # columns of the low-rank posterior's factor
BOUND = 5.0  # of |log σ| and the entries of the factor: exp can neither overflow nor vanish


class VAE(nnx.Module):
    """q(z|x), p(x|z) and p(z)."""

    def __init__(self, config: Config, pixels: int, trials: int, *, rngs: nnx.Rngs):
        full = parametrize.gaussian_size(config.latents)
        heads = {"diagonal": 2, "low-rank": 2 + RANK}
        head = heads[config.posterior] * config.latents if config.posterior in heads else full
        self.encoder = _mlp(pixels, config.hidden, head, rngs)
        self.decoder = _mlp(config.latents, config.hidden, pixels, rngs)
        if config.prior == "learned":
            self.prior_vector = nnx.Param(jnp.zeros(full))
        self.config = config
        self.trials = trials

    def posterior(self, x: Array) -> gj.Gaussian:
        """q(z|x), a batch of Gaussians."""
        vector = self.encoder(2 * x / self.trials - 1)
        return bounded_gaussian(vector, self.config.latents, self.config.posterior)

    def prior(self) -> gj.Gaussian:
        """p(z)."""
        if self.config.prior == "standard":
            return gj.standard(self.config.latents)
        return bounded_gaussian(self.prior_vector[...], self.config.latents, "full")

    def logits(self, z: Array) -> Array:
        """Log-odds of every pixel's p."""
        return self.decoder(z)


def bounded_gaussian(vector: Array, dim: int, structure: str) -> gj.Gaussian:
    """A Gaussian from any real vector: the mean, then the entries of the covariance."""
    mean, rest = vector[..., :dim], vector[..., dim:]
    rest = BOUND * jnp.tanh(rest / BOUND)
    if structure == "full":
        rest = rest * _weights(dim)
        return gj.Gaussian(mean, gj.Cholesky(parametrize.scaled_lower_from_vector(rest)))
    scale, factor = jnp.exp(rest[..., :dim]), rest[..., dim:]
    if structure == "diagonal":
        return gj.Gaussian(mean, gj.Diagonal(scale))
    return gj.Gaussian(mean, gj.LowRank(scale, factor.reshape(*factor.shape[:-1], dim, RANK)))


def _weights(dim: int) -> Array:
    """Of the entries of a triangle: 1 on the diagonal, 1/d below it.

    A step of Adam is as large for entries that hardly matter as for others. So weighted, all d of a
    row move it no more than one entry would: else their noise drowns the means of many latents, and
    the decoder learns to ignore them.
    """
    rows, columns = np.tril_indices(dim)
    return jnp.asarray(np.where(rows == columns, 1.0, 1 / dim), jnp.float32)


def _mlp(inputs: int, hidden: int, outputs: int, rngs: nnx.Rngs) -> nnx.Sequential:
    return nnx.Sequential(
        nnx.Linear(inputs, hidden, rngs=rngs),
        jax.nn.gelu,
        nnx.Linear(hidden, hidden, rngs=rngs),
        jax.nn.gelu,
        nnx.Linear(hidden, outputs, rngs=rngs),
    )
