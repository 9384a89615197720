"""Operations on two covariances of any structures, for one pair.

Structures are compared through a root that both have; no rule here names a structure.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.covariances.base import Covariance
from gaussjax.linalg.divergence import divergence_of_ratio, divergence_of_roots


def shifted_divergence(
    a: Covariance, b: Covariance, shift: Float[Array, " d"], /
) -> Float[Array, ""]:
    """D(A, B) + vᵀB⁻¹v, where D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A|. O(d³), O(d) for diagonals

    Twice the KL divergence of two Gaussians whose means are v apart.
    """
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return divergence_of_roots(root_a, root_b, shift)
    # D(A, B) = D(B⁻¹, A⁻¹): the trace and the determinant of B⁻¹A = (A⁻¹)⁻¹B⁻¹ up to similarity.
    root_a, root_b = a.precision_root(), b.precision_root()
    if root_a is not None and root_b is not None:
        zero = jnp.zeros_like(shift)
        return divergence_of_roots(root_b, root_a, zero) + b.inv_quad(shift)
    ratio = jax.vmap(b.whiten, 1, 1)(a.factor())
    return divergence_of_ratio(ratio, a.logdet() - b.logdet()) + b.inv_quad(shift)
