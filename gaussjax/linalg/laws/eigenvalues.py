"""Functions of the eigenvalues λ of B⁻¹A that do not depend on their order, from roots."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax._mapping import all_of_batch
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
    return _squared_logs(solve_triangle(b, a), *_once(a, b))


# Of M = K⁻¹L and the eigenvectors U of M Mᵀ,
#   d ½ Σ log²λ = Σ log λ/λ uᵀd(M Mᵀ)u = 2⟨U diag(log λ/λ) UᵀM, dM⟩.
@jax.custom_jvp
def _squared_logs(ratio: Array, logs: Array, vectors: Array) -> Array:
    return 0.5 * jnp.sum(jnp.square(logs))


@_squared_logs.defjvp
def _(primals, tangents):
    ratio, dratio = primals[0], tangents[0]
    slope = dot(_slope(*primals), ratio)
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
    moved = dot(ratio, dratio.T)
    inner = dot(vectors.T, dot(moved + moved.T, vectors)) * (weights * jnp.exp(-2 * middle))
    return _slope(*primals), dot(vectors, dot(inner, vectors.T))


# Near the identity they are those of S = G + Gᵀ + G Gᵀ, G = K⁻¹(L − K), and else singular values of
# M. Rounding of those is that of the largest: the small ones are better known from M⁻¹.
def spectrum(a: Array, b: Array) -> tuple[Array, Array]:
    """Log λ and U, M Mᵀ = U diag(λ) Uᵀ with M = K⁻¹L."""
    change = solve_triangle(b, a - b)
    s = change + change.T + gram(change)
    finite = jnp.all(jnp.isfinite(s))
    packed = lapack.eigh(jnp.where(finite, s, 0.0))
    t, vectors = packed[:, -1], packed[:, :-1]
    near = finite & jnp.all((t > -0.75) & (t < 3))
    logs = jnp.log1p(jnp.where(near, t, 0.0))

    def either() -> tuple[Array, Array]:
        left, sizes = lapack.left_singular(solve_triangle(b, a))
        inverse = lapack.left_singular(solve_triangle(a, b))[1][::-1]
        far = 2 * jnp.where(sizes < 1, -jnp.log(inverse), jnp.log(sizes))
        return jnp.where(near, logs, far), jnp.where(near, vectors, left)

    return lax.cond(all_of_batch(near), lambda: (logs, vectors), either)


@jax.custom_jvp
def _once(a: Array, b: Array) -> tuple[Array, Array]:
    return spectrum(a, b)


@_once.defjvp
def _(primals, tangents):  # eigenvectors have no derivative where eigenvalues repeat
    out = _once(*primals)
    lost = jnp.nan * (jnp.sum(tangents[0]) + jnp.sum(tangents[1]))
    return out, (jnp.full_like(out[0], 1.0) * lost, jnp.full_like(out[1], 1.0) * lost)
