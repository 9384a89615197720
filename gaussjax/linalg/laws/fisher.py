"""F t = c for the Fisher information F of parameters that are tied to each other.

In the numbers that Σ depends on, tᵀFt = ½ tr((Σ⁻¹dΣ)²).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax.linalg.factor import factorise
from gaussjax.linalg.low_rank import largest
from gaussjax.linalg.orthonormal import orthonormal_rows
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.triangular import solve


# With W = diag(s) U R for orthonormal columns U, ds = ½ s τ and dW = diag(s) X R⁻ᵀ,
#   diag(1/s) dΣ diag(1/s) = diag(τ) + X Uᵀ + U Xᵀ,   diag(s) Σ⁻¹ diag(s) = Q + U K Uᵀ,
# Q = I − U Uᵀ, K⁻¹ = I + R Rᵀ. Of the equation for X the parts along U and Q are solved by
#   X = ½ U (K⁻¹B K⁻¹ − Uᵀdiag(τ)U) + C K⁻¹ − Q diag(τ)U,   c = U B + C with C = Q c,
# and with it that for τ reads (Q∘Q) τ = 2c_τ − diag(C Uᵀ + U Cᵀ + U B Uᵀ).
def of_low_rank(
    scale: Float[Array, " d"], factor: Float[Array, "d r"], dscale: Array, dfactor: Array
) -> tuple[Float[Array, " d"], Float[Array, "d r"]]:
    """Changes of s and W in diag(s²) + W Wᵀ: of many, as columns of W may be turned. O(d r⁴)

    NaN where scales and factor are not determined by Σ.
    """
    if factor.shape[1] == 0:
        return 0.5 * jnp.square(scale) * dscale, dfactor
    column = scale[:, None]
    lower, rows = orthonormal_rows((factor / column).T)
    u = rows.T
    c = solve(lower, (column * dfactor).T).T
    b = dot(u.T, c)
    b, c = 0.5 * (b + b.T), c - dot(u, b)
    shares = 2 * jnp.sum(c * u, axis=1) + jnp.sum(dot(u, b) * u, axis=1)
    tau = _solve_squares(u, scale * dscale - shares)
    turned = tau[:, None] * u
    wide = jnp.eye(len(lower), dtype=lower.dtype) + dot(lower.T, lower)
    inner = dot(u.T, turned)
    along = 0.5 * (dot(wide, dot(b, wide)) - inner)
    x = dot(u, along) + dot(c, wide) - (turned - dot(u, inner))
    return 0.5 * scale * tau, column * solve(lower, x.T, transpose=True).T


# Q∘Q = diag(1 − 2h) + V Vᵀ with h = diag(U Uᵀ), whose sum is r, and products of columns of U in V.
# All but 4r rows have h ≤ ¼: they are eliminated first.
def _solve_squares(u: Float[Array, "d r"], rhs: Float[Array, " d"]) -> Float[Array, " d"]:
    """(Q∘Q)⁻¹b, Q = I − U Uᵀ."""
    d, r = u.shape
    if d <= 4 * r:
        root = factorise(jnp.square(jnp.eye(d, dtype=u.dtype) - gram(u)))
        return solve(root, solve(root, rhs), transpose=True)
    h = jnp.sum(jnp.square(u), axis=1)
    last = largest(4 * r)(jax.lax.stop_gradient(h))
    is_last = jnp.zeros_like(h, bool).at[last].set(True)
    i, j = np.triu_indices(r)
    twice = np.where(i == j, 1.0, np.sqrt(2.0)).astype(u.dtype)
    v = u[:, i] * u[:, j] * twice[None]
    pivots = jnp.where(is_last, 1.0, 1 - 2 * h)
    first = jnp.where(is_last[:, None], 0.0, v)
    scaled = first / pivots[:, None]
    root = factorise(jnp.eye(len(i), dtype=u.dtype) + dot(first.T, scaled))
    coupling = solve(root, v[last].T)
    known = solve(root, dot(scaled.T, rhs))
    corner = factorise(jnp.diag(1 - 2 * h[last]) + gram(coupling.T))
    x = solve(corner, rhs[last] - dot(coupling.T, known))
    x = solve(corner, x, transpose=True)
    w = solve(root, known + dot(coupling, x), transpose=True)
    return (rhs / pivots - dot(scaled, w)).at[last].set(x)
