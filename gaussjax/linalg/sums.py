"""The triangular root of a sum of covariances, given both as a matrix and as a wide factor."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from gaussjax._mapping import all_of_batch
from gaussjax.linalg.cholesky import factorise, half_triangle
from gaussjax.linalg.looped import looped
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import change_of_root, triangular_root
from gaussjax.linalg.triangular import solve


# A pivot of a Cholesky factorisation has an error of d u Σᵢᵢ. It costs a fifth of a QR of the
# factor, whose pivots are roots with an error of d u √Σᵢᵢ, and is taken where most digits are left.
@jax.custom_jvp
def root_of_sum(matrix: Float[Array, "d d"], factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """Lower L with L Lᵀ = Σ = F Fᵀ. O(d³)

    By Cholesky of Σ where every pivot, the variance of xᵢ given those before it, is above ε^¼ of
    the variance, else by QR of F.
    """
    return _root(matrix, factor)


@root_of_sum.defjvp
def _(primals, tangents):
    (matrix, factor), (dmatrix, dfactor) = primals, tangents
    lower = root_of_sum(matrix, factor)
    good = all_of_batch(_keeps_digits(lax.stop_gradient(lower), lax.stop_gradient(matrix)))

    def by_matrix() -> Array:  # dL = L Φ(L⁻¹ dΣ L⁻ᵀ)
        change = solve(lower, solve(lower, 0.5 * (dmatrix + dmatrix.T)).T)
        return dot(lower, half_triangle(change))

    return lower, lax.cond(good, by_matrix, lambda: change_of_root(lower, factor, dfactor))


@looped(2, 2, to=(2,))
def _root(matrix: Array, factor: Array) -> Array:
    lower = factorise(matrix)
    good = _keeps_digits(lower, matrix)
    return lax.cond(good, lambda: lower, lambda: triangular_root(factor))


def _keeps_digits(lower: Array, matrix: Array) -> Bool[Array, ""]:
    pivots, least = jnp.square(jnp.diagonal(lower)), jnp.finfo(lower.dtype).eps ** 0.25
    return jnp.all(pivots > least * jnp.diagonal(matrix))
