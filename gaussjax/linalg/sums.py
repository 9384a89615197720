"""The triangular root of a sum of covariances, given both as a matrix and as a wide factor."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from gaussjax._mapping import all_of_batch
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg.factor import change_of_factor, factorise
from gaussjax.linalg.products import dot, gram
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


def root_of_entries(matrix: Float[Array, "d d"], factor: Callable[[], Array]) -> Array:
    """`root_of_sum` without derivatives, where a factor F costs more than Σ, and may be NaN. O(d³)

    It is asked for only where digits would be lost, and is not taken where it is NaN.
    """
    lower = factorise(matrix)
    good = _keeps_digits(lower, matrix)

    def either() -> Array:
        other = triangular_root(factor())
        return jnp.where(good | ~jnp.all(jnp.isfinite(other)), lower, other)

    return lax.cond(all_of_batch(good), lambda: lower, either)


class Parts(NamedTuple):
    """What the derivatives of Σ = F Fᵀ + M are taken in; there may be no F, or no M."""

    factor: Float[Array, "d k"] | None
    matrix: Float[Array, "d d"] | None


@jax.custom_jvp
def with_derivative(lower: Float[Array, "d d"], parts: Parts) -> Float[Array, "d d"]:
    """The lower root of a sum, whose derivative is that in the parts of the sum. O(d²(d + k))"""
    return lower


@with_derivative.defjvp
def _(primals, tangents):
    (_, parts), (_, changes) = primals, tangents
    lower = with_derivative(*primals)
    terms = []
    if parts.factor is not None:
        terms.append(change_of_root(lower, parts.factor, changes.factor))
    if parts.matrix is not None:
        terms.append(change_of_factor(lower, changes.matrix))
    return lower, functools.reduce(jnp.add, terms)


# Not through L: with x = Σ⁻¹v it is d(vᵀx) = 2 xᵀdv − xᵀdΣ x and d log|Σ| = tr Σ⁻¹dΣ, where
# dΣ = dF Fᵀ + F dFᵀ + dM; with F no digits are lost in Σ⁻¹.
@jax.custom_jvp
def inv_quad_and_logdet(
    lower: Float[Array, "d d"], parts: Parts, vector: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """vᵀΣ⁻¹v and log|Σ|, with derivatives as `with_derivative`. O(d²(d + k))"""
    return inv_quad_lower(lower, vector), 2 * logdet_of_triangle(lower)


@inv_quad_and_logdet.defjvp
def _(primals, tangents):
    (_, parts, vector), (_, changes, dvector) = primals, tangents
    lower = with_derivative(*primals[:2])
    x = solve(lower, solve(lower, vector), transpose=True)
    dquad, dlogdet = 2 * jnp.sum(x * dvector), jnp.zeros((), vector.dtype)
    if parts.factor is not None:
        precise = solve(lower, solve(lower, parts.factor), transpose=True)
        dquad -= 2 * jnp.sum(dot(parts.factor.T, x) * dot(changes.factor.T, x))
        dlogdet += 2 * jnp.sum(precise * changes.factor)
    if parts.matrix is not None:
        precision = gram(solve(lower, jnp.eye(len(vector), dtype=vector.dtype)).T)
        dquad -= jnp.sum(x * dot(changes.matrix, x))
        dlogdet += jnp.sum(precision * changes.matrix)
    return inv_quad_and_logdet(*primals), (dquad, dlogdet)


@kernel("d d, d k -> d d", native="root_of_sum")
def _root(matrix: Array, factor: Array) -> Array:
    lower = factorise(matrix)
    good = _keeps_digits(lower, matrix)
    return lax.cond(good, lambda: lower, lambda: triangular_root(factor))


def _keeps_digits(lower: Array, matrix: Array) -> Bool[Array, ""]:
    pivots, least = jnp.square(jnp.diagonal(lower)), jnp.finfo(lower.dtype).eps ** 0.25
    return jnp.all(pivots > least * jnp.diagonal(matrix))
