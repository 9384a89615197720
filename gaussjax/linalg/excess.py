"""Logarithms subtracted from their argument, without cancellation near zero.

x − log(1 + x), tr Y − log|I + Y| and log|I + T Tᵀ| are zero at zero, of second order there, and
never negative: divergences are sums of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import lapack
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import solve


# d (tr Y − log|I + Y|) = tr((I + Y)⁻¹Y dY)
@jax.custom_jvp
def excess_of_logdet(y: Float[Array, "r r"]) -> Float[Array, ""]:
    """tr Y − log|I + Y| ≥ 0 for symmetric Y, to full accuracy also near zero. O(r³)

    Elimination of I + Y with pivots 1 + pₖ: log|I + Y| = Σ log(1 + pₖ), and what a step takes off
    the diagonal of Y is a sum of squares over the pivot, so nothing cancels.
    """
    if y.shape[0] == 0:
        return jnp.zeros((), y.dtype)
    positions = jnp.arange(y.shape[0])

    def step(y: Array, k: Array) -> tuple[Array, Array]:
        column = jnp.where(positions > k, y[k], 0.0)
        p = y[k, k]
        value = minus_log1p(p, 1 + p) + jnp.sum(jnp.square(column)) / (1 + p)
        return y - jnp.outer(column, column) / (1 + p), value

    return jnp.sum(jax.lax.scan(step, y, positions)[1])


@excess_of_logdet.defjvp
def _(primals, tangents):
    (y,), (dy,) = primals, tangents
    lower = factorise(y + jnp.eye(len(y), dtype=y.dtype))
    slope = solve(lower, solve(lower, y), transpose=True)
    return excess_of_logdet(y), jnp.sum(slope * dy)


@jax.jit  # traced once, though unrolled kernels take it number by number
def minus_log1p(x: Array, ratio: Array) -> Array:
    """x − log(1 + x) ≥ 0 to full relative accuracy, from x and from `ratio` = 1 + x.

    Near −1 only the ratio has digits, near zero only x: there log(1 + x) = 2 artanh(s) with
    s = x / (2 + x), and x − 2s = x s leaves x s − 2s³(1/3 + s²/5 + s⁴/7 + …).
    """
    return _minus_log1p(x, ratio)


@jax.custom_jvp
def _minus_log1p(x: Array, ratio: Array) -> Array:
    near = (x > -1 / 3) & (x < 0.5)  # |s| ≤ 1/5
    s = x / (2 + jnp.where(near, x, 0.0))
    s = jnp.where(near, s, 0.0)
    z = s * s
    terms = 6 if x.dtype == jnp.float32 else 12
    series = jnp.full_like(x, 1 / (2 * terms + 1))
    for k in reversed(range(3, 2 * terms, 2)):
        series = 1 / k + z * series
    return jnp.where(near, x * s - 2 * s * z * series, x - jnp.log(ratio))


@_minus_log1p.defjvp
def _(primals, tangents):
    (x, ratio), (dx, _) = primals, tangents
    return _minus_log1p(x, ratio), x / ratio * dx  # 1 − 1/ratio would cancel


# d log|I + T Tᵀ| = 2⟨(I + T Tᵀ)⁻¹T, dT⟩
@jax.custom_jvp
def logdet_of_gram(t: Float[Array, "n k"]) -> Float[Array, ""]:
    """log|I + T Tᵀ| = Σ log(1 + σᵢ²) ≥ 0 over the singular values of T. O(n k min(n, k))"""
    if t.size == 0:
        return jnp.zeros((), t.dtype)
    return jnp.sum(jnp.log1p(jnp.square(lapack.left_singular(t)[1])))


@logdet_of_gram.defjvp
def _(primals, tangents):
    (t,), (dt,) = primals, tangents
    root = triangular_root(jnp.concatenate([jnp.eye(len(t), dtype=t.dtype), t], axis=1))
    slope = solve(root, solve(root, t), transpose=True)
    return logdet_of_gram(t), 2 * jnp.sum(slope * dt)
