"""What both kinds of heads share: the initial bias, and the Gaussian made of a layer's output."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import variance_scaling
from jaxtyping import Array

from gaussjax import transforms
from gaussjax._errors import numbers
from gaussjax.gaussian import Gaussian
from gaussjax.parametrize import Bounded, Form, Positive, gaussian_from_vector

Scale = float | tuple[float, ...]

BOUNDS = Bounded(1e-3, 1e3)
"""Of deviations, or pivots of factors, in units of the scale: float32 has digits to spare."""

KERNEL = variance_scaling(0.01, "fan_in", "truncated_normal")
"""A tenth of the usual: heads start near one Gaussian, and not where W is zero."""


def bias(form: Form, dim: int, diagonal: Positive) -> Callable[..., Array]:
    """Initialiser of a bias that alone gives N(0, I).

    Raises:
        ValueError: `diagonal` does not reach one.
    """
    with jax.ensure_compile_time_eval():
        entries = form.entries(form.isotropic(dim, 1.0), diagonal)
        if not bool(jnp.all(jnp.isfinite(entries))):
            raise ValueError(f"diagonal must take the value 1, where a head starts: {diagonal}.")

    def start(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
        return jnp.concatenate([jnp.zeros(dim), entries]).astype(dtype)

    return start


def gaussian(vector: Array, dim: int, form: Form, diagonal: Positive, scale: Scale) -> Gaussian:
    """Of a layer's output, in units of `scale`; in float32 where the layer computes in less."""
    wide = vector.astype(jnp.promote_types(vector.dtype, jnp.float32))
    unit = gaussian_from_vector(wide, dim, form=form, diagonal=diagonal)
    return transforms.scale_by(unit, jnp.asarray(scale, wide.dtype))


def checked(scale: Scale, dim: int) -> Scale:
    """A scale, or `dim` of them, as static numbers.

    Raises:
        TypeError: they are not numbers, or traced.
        ValueError: they are not positive and finite, or not as many.
    """
    values = numbers("scale", scale).astype(float)
    if values.shape not in ((), (dim,)) or not np.all((values > 0) & (values < np.inf)):
        raise ValueError(f"scale must be a positive number, or {dim} of them, got {scale}.")
    return values.tolist() if values.ndim == 0 else tuple(values.tolist())
