"""What hosts have in common: normals that become Gaussians, and divergences between the two."""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gaussjax import divergences
from gaussjax.covariances import Diagonal
from gaussjax.gaussian import Gaussian


def refused(distribution: Any, host: str) -> TypeError:
    """The sentence for what is no normal distribution."""
    name = type(distribution).__name__
    return TypeError(f"distribution must be a normal distribution of {host}, got {name}.")


def inner_normal(
    distribution: Any, normal: type | tuple[type, ...], wrappers: tuple[type, ...], name: str
) -> Any:
    """The host's univariate normals inside wrappers, which keep what they wrap by that name.

    Raises:
        TypeError: other ones are inside.
    """
    base = distribution
    while isinstance(base, wrappers):
        base = getattr(base, name)
    if not isinstance(base, normal):
        raise TypeError(
            f"distribution must be independent Normals, got independent {type(base).__name__}s."
        )
    return base


def independent(loc: Any, scale: Any, batch: Iterable[int], event: Iterable[int]) -> Gaussian:
    """Normals that are independent along an event axis; one has none, and becomes one dimension.

    Raises:
        ValueError: there are more axes.
    """
    batch, event = tuple(batch), tuple(event)
    shape = *batch, one_event_axis(event) if event else 1
    loc, scale = floating(loc), floating(scale)
    dtype = jnp.result_type(loc, scale)  # which a number does not change
    mean, deviations = (
        jnp.broadcast_to(x.astype(dtype), batch + event).reshape(shape) for x in (loc, scale)
    )
    return Gaussian(mean, Diagonal(deviations))


def one_event_axis(shape: tuple[int, ...]) -> int:
    """The dimension of a vector.

    Raises:
        ValueError: it is none.
    """
    if len(shape) != 1:
        raise ValueError(f"distribution must have one event axis, got event shape {shape}.")
    return shape[0]


def positive_pivots(lower: Array) -> Array:
    """A factor of the same L Lᵀ, in which the sign of a column does not matter."""
    pivots = jnp.diagonal(lower, axis1=-2, axis2=-1)
    signs = jnp.where(pivots < 0, -1, 1).astype(lower.dtype)
    return lower * signs[..., None, :]


def register_divergences(
    register: Callable[[type, type], Callable[[Any], Any]],
    ours: type,
    normals: Iterable[type],
    to_gaussian: Callable[[Any], Gaussian],
) -> None:
    """The host's KL divergences of Gaussians, and of Gaussians and its normals, either way."""

    def kl_divergence(p: Any, q: Any, *_: Any, **__: Any) -> Array:
        try:
            pair = to_gaussian(p), to_gaussian(q)
        except (TypeError, ValueError) as error:  # hosts then do without a closed form
            raise NotImplementedError(str(error)) from error
        return divergences.kl_divergence(*pair)

    register(ours, ours)(kl_divergence)
    for normal in normals:
        register(ours, normal)(kl_divergence)
        register(normal, ours)(kl_divergence)


def floating(value: Any) -> Array:
    """A parameter as an array, in which integers are floating numbers."""
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array * 1.0
