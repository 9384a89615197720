"""Σ = s² I + ⊗ Cᵢ Cᵢᵀ from the singular vectors of its factors: no array of d × d numbers.

With Cᵢ = Uᵢ diag(σᵢ) Vᵢᵀ and U = ⊗ Uᵢ it is U diag(s² + ⊗ σᵢ²) Uᵀ. Singular values of Cᵢ, and not
eigenvalues of Cᵢ Cᵢᵀ, keep the digits of the small ones: errors grow with the condition of the
factors and not with its square.

Singular vectors have no derivative where values repeat, but these functions of them do:

    d(vᵀΣ⁻¹v) = 2 xᵀdv − d(‖⊗ Cᵢᵀx‖² + s²‖x‖²),  x = Σ⁻¹v held fixed in the last,
    d log|Σ| = 2 Σᵢ ⟨Gᵢ Cᵢ, dCᵢ⟩ + 2 s ds Σₐ 1/μₐ,  μ = s² + ⊗ σᵢ²,

where Gᵢ = Uᵢ diag(gᵢ) Uᵢᵀ and gᵢ is the sum of Π_{j≠i} σⱼ² / μ over all axes but the i-th.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import lapack
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.semidefinite import (
    OnSupport,
    Support,
    coordinates,
    is_outside,
    root_within,
    support_of,
    valid_if,
    volume,
)
from gaussjax.linalg.triangular import logdet_of_diagonal, logdet_of_triangle
from gaussjax.linalg.triangular import solve as triangular_solve

Factors = tuple[Array, ...]
"""Cᵢ, `(dᵢ, dᵢ)` each."""


def along_axes(maps: list[Callable[[Array], Array]], array: Array) -> Float[Array, " n"]:
    """Applies the i-th map to every vector along axis i."""
    for axis, function in enumerate(maps):
        moved = jnp.moveaxis(array, axis, -1)
        rows = jax.vmap(function)(moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1]))
        array = jnp.moveaxis(rows.reshape(*moved.shape[:-1], rows.shape[-1]), -1, axis)
    return array.ravel()


def solve(factors: Factors, scale: Float[Array, ""], vector: Float[Array, " d"]) -> Array:
    """Σ⁻¹v, whose derivatives are solves and products again. O(Σ dᵢ³ + d Σ dᵢ)"""
    return lax.custom_linear_solve(
        lambda x: _times(factors, _times_transpose(factors, x)) + jnp.square(scale) * x,
        vector,
        solve=lambda _, v: _solve(factors, scale, v),
        symmetric=True,
    )


@jax.custom_jvp
def inv_quad(factors: Factors, scale: Float[Array, ""], vector: Float[Array, " d"]) -> Array:
    """vᵀΣ⁻¹v as a sum of squares. O(Σ dᵢ³ + d Σ dᵢ)"""
    vectors, eigenvalues = _decomposed(factors, scale)
    return jnp.sum(jnp.square(_times_transpose(vectors, vector) / jnp.sqrt(eigenvalues)))


@inv_quad.defjvp
def _(primals, tangents):
    factors, scale, vector = primals
    x = solve(factors, scale, vector)

    def squares(factors: Factors, scale: Array) -> Array:
        shared = jnp.sum(jnp.square(_times_transpose(factors, x)))
        return shared + jnp.square(scale) * jnp.sum(jnp.square(x))

    _, change = jax.jvp(squares, (factors, scale), tangents[:2])
    return inv_quad(*primals), 2 * jnp.sum(x * tangents[2]) - change


@jax.custom_jvp
def logdet(factors: Factors, scale: Float[Array, ""]) -> Float[Array, ""]:
    """log|Σ|. O(Σ dᵢ³ + d)"""
    return logdet_of_diagonal(_decomposed(factors, scale)[1])


@logdet.defjvp
def _(primals, tangents):
    gradients = _gradients(*primals)
    leaves = zip(jax.tree.leaves(gradients), jax.tree.leaves(tangents), strict=True)
    return logdet(*primals), sum((jnp.sum(g * t) for g, t in leaves), jnp.zeros_like(primals[1]))


@jax.custom_jvp
def _gradients(factors: Factors, scale: Array) -> tuple[Factors, Array]:
    parts, inverse = _singular(factors), 1 / _decomposed(factors, scale)[1]
    squares = [jnp.square(values) for _, values in parts]
    found = []
    for i, ((vectors, _), factor) in enumerate(zip(parts, factors, strict=True)):
        weights = [jnp.ones_like(x) if j == i else x for j, x in enumerate(squares)]
        shares = (inverse * outer(weights)).reshape([len(x) for x in squares])
        g = jnp.sum(shares, axis=tuple(j for j in range(len(squares)) if j != i))
        found.append(2 * dot(vectors, g[:, None] * dot(vectors.T, factor)))
    return tuple(found), 2 * scale * jnp.sum(inverse)


@_gradients.defjvp
def _(primals, tangents):  # a second derivative takes the dense matrix
    return _gradients(*primals), jax.jvp(jax.grad(_dense_logdet, (0, 1)), primals, tangents)[1]


def _dense_logdet(factors: Factors, scale: Array) -> Array:
    product = functools.reduce(jnp.kron, [gram(c) for c in factors])
    one = jnp.eye(len(product), dtype=product.dtype)
    return 2 * logdet_of_triangle(factorise(product + jnp.square(scale) * one))


def _decomposed(factors: Factors, scale: Array) -> tuple[Factors, Array]:
    """Uᵢ, and the eigenvalues of Σ."""
    parts = _singular(factors)
    products = outer([jnp.square(values) for _, values in parts])
    return tuple(vectors for vectors, _ in parts), jnp.square(scale) + products


def _singular(factors: Factors) -> list[tuple[Array, Array]]:
    """Uᵢ and σᵢ."""
    return [lapack.left_singular(c) for c in factors]


def on_support(factors: Factors, vector: Float[Array, " d"]) -> OnSupport:
    """What the density on the support is made of. O(Σ dᵢ³ + d Σ dᵢ)"""
    supports = [support_of(c) for c in factors]
    lowers = [root_within(s, c) for s, c in zip(supports, factors, strict=True)]
    inside, is_off = _inside(supports, vector)
    whitened = along_axes([functools.partial(triangular_solve, c) for c in lowers], inside)
    distance = jnp.where(is_off, jnp.inf, jnp.sum(jnp.square(whitened)))

    # The eigenvalues of Σ are products of one of each factor.
    dims = [jnp.sum(s.kept, dtype=vector.dtype) for s in supports]
    logdet = jnp.zeros((), vector.dtype)
    for i, (s, lower) in enumerate(zip(supports, lowers, strict=True)):
        own = 2 * logdet_of_triangle(lower) + volume(s)
        logdet = logdet + math.prod(n for j, n in enumerate(dims) if j != i) * own
    return valid_if(_are_finite(factors), distance, logdet, jnp.asarray(math.prod(dims)))


def _inside(supports: list[Support], vector: Array) -> tuple[Array, Array]:
    """Coordinates of v in the ranges, along an axis each, and whether they are not all of v."""
    shaped = vector.reshape([len(s.sizes) for s in supports])
    inside = along_axes([functools.partial(coordinates, s) for s in supports], shaped)
    inside = inside.reshape([len(s.kept) for s in supports])
    back = _along_bases(supports, inside)
    return inside, is_outside(vector / outer([s.sizes for s in supports]), back)


def _along_bases(supports: list[Support], inside: Array) -> Float[Array, " d"]:
    return along_axes([functools.partial(dot, s.basis) for s in supports], inside)


def _are_finite(factors: Factors) -> Array:
    return functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(c)) for c in factors])


def outer(vectors: list[Array]) -> Float[Array, " d"]:
    """⊗ vᵢ."""
    return functools.reduce(lambda x, y: (x[:, None] * y[None]).ravel(), vectors)


def _times(factors: Factors, vector: Array) -> Array:
    shaped = vector.reshape([len(c) for c in factors])
    return along_axes([functools.partial(dot, c) for c in factors], shaped)


def _times_transpose(factors: Factors, vector: Array) -> Array:
    return _times(tuple(c.T for c in factors), vector)


def _solve(factors: Factors, scale: Array, vector: Array) -> Array:
    vectors, eigenvalues = _decomposed(factors, scale)
    return _times(vectors, _times_transpose(vectors, vector) / eigenvalues)
