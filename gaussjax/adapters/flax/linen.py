"""Linen: a linear layer that ends in a Gaussian."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from gaussjax.adapters.flax import heads
from gaussjax.gaussian import Gaussian
from gaussjax.parametrize import Form, FullForm, Positive, gaussian_size


class GaussianHead(nn.Module):
    """Features `(..., n)` to a Gaussian with batch shape `(...)`, by one linear layer.

    As `gaussjax.adapters.flax.nnx.GaussianHead`, with the same options and start.

    Raises:
        ValueError: `scale` is not positive, or `diagonal` does not take the value 1.

    >>> import jax
    >>> head = GaussianHead(dim=3)
    >>> params = head.init(jax.random.key(0), jnp.ones(16))
    >>> head.apply(params, jnp.ones((5, 16))).cov
    Cholesky(lower=float32[5,3,3])
    """

    dim: int
    form: Form = FullForm()
    diagonal: Positive = heads.BOUNDS
    scale: heads.Scale = 1.0
    kernel_init: Any = heads.KERNEL
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None

    @nn.compact
    def __call__(self, features: Float[Array, "... n"]) -> Gaussian:
        """The Gaussian of each row of features."""
        layer = nn.Dense(
            gaussian_size(self.dim, self.form),
            kernel_init=self.kernel_init,
            bias_init=heads.bias(self.form, self.dim, self.diagonal),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            name="linear",
        )
        scale = heads.checked(self.scale, self.dim)
        return heads.gaussian(layer(features), self.dim, self.form, self.diagonal, scale)
