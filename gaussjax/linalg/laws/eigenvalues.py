"""Functions of the eigenvalues λ of B⁻¹A that do not depend on their order, from roots."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import lapack
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.ranges import quotient
from gaussjax.linalg.triangular import solve_triangle


def squared_logs_of_diagonals(a: Float[Array, " d"], b: Float[Array, " d"]) -> Float[Array, ""]:
    """½ Σ log²λ of two diagonal roots. O(d)"""
    r = quotient(a - b, b)
    near = jnp.abs(r) < 0.5
    logs = jnp.where(near, jnp.log1p(jnp.where(near, r, 0.0)), jnp.log(quotient(a, b)))
    return 2 * jnp.sum(jnp.square(logs))


def squared_logs(a: Float[Array, "d d"], b: Float[Array, "d d"]) -> Float[Array, ""]:
    """½ Σ log²λ of two triangular roots. O(d³)

    Its third derivatives are NaN.
    """
    if a.shape[0] == 0:
        return jnp.zeros((), a.dtype)
    ratio = solve_triangle(b, a - b)
    return _squared_logs(ratio, *_once(ratio))


# Of G = K⁻¹L − I and S = G + Gᵀ + G Gᵀ with eigenvectors U and eigenvalues t = λ − 1,
#   d ½ Σ log²λ = Σ log λ/λ uᵀdS u = 2⟨U diag(log λ/λ) Uᵀ(I + G), dG⟩.
@jax.custom_jvp
def _squared_logs(ratio: Array, logs: Array, vectors: Array) -> Array:
    return 0.5 * jnp.sum(jnp.square(logs))


@_squared_logs.defjvp
def _(primals, tangents):
    ratio, dratio = primals[0], tangents[0]
    slope = _slope(*primals)
    slope = slope + dot(slope, ratio)
    return _squared_logs(*primals), 2 * jnp.sum(slope * dratio)


# Of h(λ) = log λ/λ the divided difference is, with log λ = m + δ and log μ = m − δ,
#   (h(λ) − h(μ))/(λ − μ) = (δ coth δ − m)/(λμ).
@jax.custom_jvp
def _slope(ratio: Array, logs: Array, vectors: Array) -> Array:
    """U diag(log λ/λ) Uᵀ."""
    return dot(vectors * (logs * jnp.exp(-logs))[None], vectors.T)


@_slope.defjvp
def _(primals, tangents):
    (ratio, logs, vectors), dratio = primals, tangents[0]
    middle = 0.5 * (logs[:, None] + logs[None])
    delta = 0.5 * jnp.abs(logs[:, None] - logs[None])
    same = delta == 0
    weights = jnp.where(same, 1.0, delta / jnp.tanh(jnp.where(same, 1.0, delta))) - middle
    moved = dratio + dot(ratio, dratio.T)
    inner = dot(vectors.T, dot(moved + moved.T, vectors)) * (weights * jnp.exp(-2 * middle))
    return _slope(*primals), dot(vectors, dot(inner, vectors.T))


def spectrum(ratio: Array) -> tuple[Array, Array]:
    """Log λ and U, (I + G)(I + G)ᵀ = U diag(λ) Uᵀ: near the identity from G + Gᵀ + G Gᵀ."""
    one = jnp.eye(len(ratio), dtype=ratio.dtype)
    packed = lapack.eigh(ratio + ratio.T + gram(ratio))
    t = packed[:, -1]
    near = jnp.max(jnp.abs(t)) < 0.5
    vectors, sizes = lapack.left_singular(one + ratio)
    logs = jnp.where(near, jnp.log1p(jnp.where(near, t, 0.0)), 2 * jnp.log(sizes))
    return logs, jnp.where(near, packed[:, :-1], vectors)


@jax.custom_jvp
def _once(ratio: Array) -> tuple[Array, Array]:
    return spectrum(ratio)


@_once.defjvp
def _(primals, tangents):  # eigenvectors have no derivative where eigenvalues repeat
    out = _once(*primals)
    lost = jnp.nan * jnp.sum(tangents[0])
    return out, (jnp.full_like(out[0], 1.0) * lost, jnp.full_like(out[1], 1.0) * lost)
