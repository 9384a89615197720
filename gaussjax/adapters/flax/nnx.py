"""NNX: a linear layer that ends in a Gaussian."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gaussjax.adapters.flax import heads
from gaussjax.gaussian import Gaussian
from gaussjax.parametrize import Form, FullForm, Positive, gaussian_size


class GaussianHead(nnx.Module):
    """Features `(..., in_features)` to a Gaussian with batch shape `(...)`, by one linear layer.

    `form` is any of `gaussjax.parametrize`: diagonal, low rank, full, banded or precision. `scale`
    is the unit, a number or a tuple of `dim` ones, such as the spread of the targets: the head
    starts near N(0, diag(scale²)), and what has to be positive stays between a thousandth and a
    thousand units, unless `diagonal` is another map. So the Gaussian is valid whatever the features
    are. Where the layer computes in bfloat16 or float16 the Gaussian is in float32.

    Raises:
        ValueError: `scale` is not positive, or `diagonal` does not take the value 1.

    >>> from gaussjax.parametrize import LowRankForm
    >>> head = GaussianHead(16, 3, form=LowRankForm(1), rngs=nnx.Rngs(0))
    >>> head(jnp.ones((5, 16))).cov
    LowRank(scale=float32[5,3], factor=float32[5,3,1])
    """

    def __init__(
        self,
        in_features: int,
        dim: int,
        *,
        form: Form = FullForm(),
        diagonal: Positive = heads.BOUNDS,
        scale: heads.Scale = 1.0,
        kernel_init: Any = heads.KERNEL,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.dim = dim
        self.form = form
        self.diagonal = diagonal
        self.scale = heads.checked(scale, dim)
        self.linear = nnx.Linear(
            in_features,
            gaussian_size(dim, form),
            kernel_init=kernel_init,
            bias_init=heads.bias(form, dim, diagonal),
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            rngs=rngs,
        )

    def __call__(self, features: Float[Array, "... n"]) -> Gaussian:
        """The Gaussian of each row of features."""
        vector = self.linear(features)
        return heads.gaussian(vector, self.dim, self.form, self.diagonal, self.scale)
