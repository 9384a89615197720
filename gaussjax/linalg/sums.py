"""The triangular root of a sum of covariances, given both as a matrix and as a wide factor."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import change_of_root, triangular_root
from gaussjax.linalg.triangular import inv_quad_lower, logdet_of_triangle, solve


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
    lower = root_of_sum(*primals)
    return lower, change_of_root(lower, primals[1], tangents[1])


def inv_quad_and_logdet(
    matrix: Float[Array, "d d"], factor: Float[Array, "d k"], vector: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """vᵀΣ⁻¹v and log|Σ|. O(d²(d + k))"""
    if vector.shape[0] == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
        return jnp.zeros((), vector.dtype), jnp.zeros((), vector.dtype)
    return _density(lax.stop_gradient(matrix), factor, vector)


# Not through L: with x = Σ⁻¹v it is d(vᵀx) = 2 xᵀdv − 2 (Fᵀx)ᵀdFᵀx and d log|Σ| = 2⟨Σ⁻¹F, dF⟩.
@jax.custom_jvp
def _density(matrix: Array, factor: Array, vector: Array) -> tuple[Array, Array]:
    lower = root_of_sum(matrix, factor)
    return inv_quad_lower(lower, vector), 2 * logdet_of_triangle(lower)


@_density.defjvp
def _(primals, tangents):
    (matrix, factor, vector), (_, dfactor, dvector) = primals, tangents
    lower = root_of_sum(matrix, factor)
    both = jnp.concatenate([factor, vector[:, None]], axis=1)
    solved = solve(lower, solve(lower, both), transpose=True)
    x, precise = solved[:, -1], solved[:, :-1]
    along = jnp.sum(dot(factor.T, x) * dot(dfactor.T, x))
    dquad, dlogdet = 2 * (jnp.sum(x * dvector) - along), 2 * jnp.sum(precise * dfactor)
    return _density(*primals), (dquad, dlogdet)


@kernel(2, 2, to=(2,), native="root_of_sum")
def _root(matrix: Array, factor: Array) -> Array:
    lower = factorise(matrix)
    good = _keeps_digits(lower, matrix)
    return lax.cond(good, lambda: lower, lambda: triangular_root(factor))


def _keeps_digits(lower: Array, matrix: Array) -> Bool[Array, ""]:
    pivots, least = jnp.square(jnp.diagonal(lower)), jnp.finfo(lower.dtype).eps ** 0.25
    return jnp.all(pivots > least * jnp.diagonal(matrix))
