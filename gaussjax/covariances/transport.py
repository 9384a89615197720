"""The squared 2-Wasserstein distance of two covariances of any structures, and its optimal map.

Any roots will do, once they are rotated towards each other.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.covariances.base import Covariance, any_root
from gaussjax.linalg.laws.procrustes import procrustes, reduced, rotation
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import quotient


def transport(a: Covariance, b: Covariance, /) -> Float[Array, ""]:
    """tr A + tr B − 2 tr(B^½A B^½)^½, by the first rule that knows both; O(d³) if none does."""
    root_a, root_b = _diagonals(a, b)
    if root_a is not None and root_b is not None:
        return jnp.sum(jnp.square(root_a - root_b))
    for one, other in ((a, b), (b, a)):
        known = one.transport_to(other)
        if known is not None:
            return known
    value = procrustes(thin_root(a), thin_root(b))
    if _stores_root(a) and _stores_root(b):
        return value
    # Solves found the roots: in two programs those of one law differ by rounding.
    scale = jnp.sum(jnp.square(lax.stop_gradient(a.stddev())))
    noise = jnp.square(8 * jnp.finfo(scale.dtype).eps) * scale
    return jnp.where(value <= noise, 0.0, value)


def transported(a: Covariance, b: Covariance, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
    """T v with the symmetric T that has T A T = B; A is regular. O(d) for diagonals, else O(d³)

    With C = a root of A, B = G Gᵀ and the polar factor U of GᵀC it is T = G U C⁻¹.
    """
    root_a, root_b = _diagonals(a, b)
    if root_a is not None and root_b is not None:
        return root_b * quotient(vector, jnp.where(root_a > 0, root_a, jnp.nan))
    root = thin_root(b)
    turn = rotation(a.dense_factor(), root)
    return dot(root, dot(turn, a.whiten(vector)))


def thin_root(cov: Covariance, /) -> Float[Array, "d k"]:
    """A root of at most d columns."""
    root = any_root(cov)
    return reduced(root) if root.shape[1] > root.shape[0] else root


def _stores_root(cov: Covariance) -> bool:
    return cov.rectangular_root() is not None or cov.covariance_root() is not None


def _diagonals(*covs: Covariance) -> list[Array | None]:
    # One that has another root is no diagonal, and its square one may be what costs most.
    roots = [c.covariance_root() if c.rectangular_root() is None else None for c in covs]
    return [r if r is not None and r.ndim == 1 else None for r in roots]
