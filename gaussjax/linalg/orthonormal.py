"""Orthonormal rows that span those of a matrix: F = L Q with L lower triangular and Q Qᵀ = I.

L alone is `roots.triangular_root`, and Q = L⁻¹F has lost its orthogonality by as much as F is ill
conditioned. What is to be projected on the rows of F needs Q itself.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.factor import half_triangle
from gaussjax.linalg.products import dot
from gaussjax.linalg.triangular import solve


# With X = L⁻¹dL and K = L⁻¹dF Qᵀ = X + dQ Qᵀ, where dQ Qᵀ is skew: X = Φ(K + Kᵀ).
@jax.custom_jvp
def orthonormal_rows(factor: Float[Array, "r n"]) -> tuple[Float[Array, "r r"], Array]:
    """L, whose diagonal is positive, and Q of F = L Q with independent rows, r ≤ n. O(n r²)"""
    return _rows_in_turn(factor) if factor.size else (factor[:, :0], factor)


@orthonormal_rows.defjvp
def _(primals, tangents):
    (factor,), (dfactor,) = primals, tangents
    lower, rows = orthonormal_rows(factor)
    change = solve(lower, dfactor)
    k = dot(change, rows.T)
    x = half_triangle(k + k.T)
    return (lower, rows), (dot(lower, x), change - dot(x, rows))


@kernel("r n -> r r, r n", tile=TILE, native="orthonormal_rows", single=True)
def _rows_in_turn(factor: Array) -> tuple[Array, Array]:
    """Gram-Schmidt on each row twice, after which Q is orthonormal to rounding.

    No row is larger than its unit meanwhile, so that no square overflows.

    Source: Giraud, Langou, Rozložník & van den Eshof, Numer. Math. 101 (2005).
    """
    units = jnp.max(jnp.abs(factor), axis=1)
    positions = jnp.arange(factor.shape[0])

    def step(rows: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        row, j = at
        first = dot(rows, row)  # those from j on are zero still
        row = row - dot(first, rows)
        second = dot(rows, row)
        row = row - dot(second, rows)
        norm = jnp.sqrt(jnp.sum(jnp.square(row)))
        rows = lax.dynamic_update_index_in_dim(rows, row / norm, j, 0)
        return rows, first + second + jnp.where(positions == j, norm, 0.0)

    none = jnp.zeros_like(factor)
    rows, lower = lax.scan(step, none, (factor / units[:, None], positions))
    return lower * units[:, None], rows


# N Fᵀ = 0 leaves dN Fᵀ = −N dFᵀ, and dN in the rows of Q: dN = −N (L⁻¹dF)ᵀ Q.
@jax.custom_jvp
def complement(
    factor: Float[Array, "r n"], lower: Float[Array, "r r"], rows: Float[Array, "r n"]
) -> Float[Array, "n-r n"]:
    """N, orthonormal rows that complete those of Q, where F = L Q are `orthonormal_rows`. O(n² r)

    Columns that are zero in F are columns of the identity in N. Derivatives are those of F.
    """
    return _complement(rows)[rows.shape[0] :]


@complement.defjvp
def _(primals, tangents):
    factor, lower, rows = primals
    rest = complement(factor, lower, rows)
    return rest, -dot(dot(rest, solve(lower, tangents[0]).T), rows)


@kernel("r n -> n n", tile=TILE)
def _complement(rows: Array) -> Array:
    """All rows of the product of the reflections that take Q to the first unit vectors."""
    positions = jnp.arange(rows.shape[1])

    def step(state: tuple[Array, Array], j: Array) -> tuple[tuple[Array, Array], None]:
        rows, product = state
        row = jnp.where(positions < j, 0.0, rows[j])
        length = jnp.sqrt(jnp.sum(jnp.square(row)))
        normal = row + jnp.where(positions == j, jnp.where(row < 0, -length, length), 0.0)
        scaled = 2 * normal / jnp.sum(jnp.square(normal))
        rows, product = (x - jnp.outer(dot(x, scaled), normal) for x in (rows, product))
        return (rows, product), None

    identity = jnp.eye(rows.shape[1], dtype=rows.dtype)
    return lax.scan(step, (rows, identity), jnp.arange(rows.shape[0]))[0][1].T
