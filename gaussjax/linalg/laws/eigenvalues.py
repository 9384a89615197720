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


# Of G = K⁻¹L − I and S = G + Gᵀ + G Gᵀ with eigenvectors U and eigenvalues t = λ − 1,
#   d ½ Σ log²λ = Σ log λ/λ uᵀdS u = 2⟨U diag(log λ/λ) Uᵀ(I + G), dG⟩.
@jax.custom_jvp
def _of_ratio(ratio: Array) -> Array:
    logs, _ = _spectrum(ratio)
    return 0.5 * jnp.sum(jnp.square(logs))


@_of_ratio.defjvp
def _(primals, tangents):
    (ratio,), (dratio,) = primals, tangents
    logs, vectors = _once(ratio)
    slope = dot(vectors * (logs * jnp.exp(-logs))[None], vectors.T)
    slope = slope + dot(slope, ratio)
    return _of_ratio(ratio), 2 * jnp.sum(slope * dratio)


def squared_logs(a: Float[Array, "d d"], b: Float[Array, "d d"]) -> Float[Array, ""]:
    """½ Σ log²λ of two triangular roots. O(d³)

    Its second derivatives are NaN.
    """
    if a.shape[0] == 0:
        return jnp.zeros((), a.dtype)
    return _of_ratio(solve_triangle(b, a - b))


def _spectrum(ratio: Array) -> tuple[Array, Array]:
    """Log λ and U: from S near the identity, else from the singular values of I + G."""
    one = jnp.eye(len(ratio), dtype=ratio.dtype)
    packed = lapack.eigh(ratio + ratio.T + gram(ratio))
    t = packed[:, -1]
    near = jnp.max(jnp.abs(t)) < 0.5
    vectors, sizes = lapack.left_singular(one + ratio)
    logs = jnp.where(near, jnp.log1p(jnp.where(near, t, 0.0)), 2 * jnp.log(sizes))
    return logs, jnp.where(near, packed[:, :-1], vectors)


@jax.custom_jvp
def _once(ratio: Array) -> tuple[Array, Array]:
    return _spectrum(ratio)


@_once.defjvp
def _(primals, tangents):  # eigenvectors have no derivative where eigenvalues repeat
    out = _once(*primals)
    lost = jnp.nan * jnp.sum(tangents[0])
    return out, (jnp.full_like(out[0], 1.0) * lost, jnp.full_like(out[1], 1.0) * lost)
