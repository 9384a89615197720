"""The symmetric square root, and the triangular root of a sum."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.linalg._kernels import lapack, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.factor import half_triangle
from gaussjax.linalg.products import dot, gram, with_transpose
from gaussjax.linalg.triangular import solve, without_zero_pivots


@lift
def symmetric_sqrt(matrix: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    """The symmetric R with R R = A, for A positive semidefinite; NaN where it is not. O(d³)

    `matrix` is `(..., d, d)` and is symmetrised. The derivative solves R dR + dR R = dA, which is
    finite with repeated eigenvalues; where both eigenvalues are zero, and the true derivative is
    infinite, it is the least-norm solution.

    Raises:
        ValueError: the matrix is not square.

    Source: Higham, Functions of Matrices, §6.

    >>> symmetric_sqrt([[4.0, 0.0], [0.0, 9.0]]).round(4)
    Array([[2., 0.],
           [0., 3.]], dtype=float32)
    """
    _errors.square("matrix", matrix)
    return symmetric_root(0.5 * (matrix + matrix.T))


@lift
def factor_of_sum(
    a: Float[Array, "... d k"], b: Float[Array, "... d m"]
) -> Float[Array, "... d d"]:
    """Lower L with L Lᵀ = A Aᵀ + B Bᵀ, without forming either product. O(d²(k + m))

    `a` is `(..., d, k)` and `b` `(..., d, m)`; leading axes broadcast. By QR of [A B]ᵀ, so its
    error grows with the condition of the factors and not with its square. The derivative needs
    k + m ≥ d and L invertible.

    Raises:
        ValueError: `a` and `b` differ in rows.

    Source: Kailath, Sayed & Hassibi, Linear Estimation, §12.1; derivative as in `cholesky`.

    >>> factor_of_sum([[3.0]], [[4.0]])
    Array([[5.]], dtype=float32)
    """
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"b must have {a.shape[0]} rows like a, got shape {b.shape}.")
    return triangular_root(jnp.concatenate([a, b], axis=1))


# R R = A gives R dR + dR R = dA. Written as a linear solve, its own derivatives are solves too.
@jax.custom_jvp
def symmetric_root(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """`symmetric_sqrt` of one symmetric matrix."""
    vectors, roots = _eigen_roots(matrix)
    return gram(vectors * jnp.sqrt(roots)[None])


@symmetric_root.defjvp
def _(primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    root = symmetric_root(matrix)
    vectors, roots = _eigen_roots(lax.stop_gradient(matrix))
    sums = roots[:, None] + roots[None]
    inverse_sums = jnp.where(sums > 0, 1 / jnp.where(sums > 0, sums, 1.0), 0.0)

    def solve_sylvester(_, rhs):
        inner = dot(vectors.T, dot(rhs, vectors))
        return dot(vectors, dot(inner * inverse_sums, vectors.T))

    def sylvester(x):
        return dot(root, x) + dot(x, root)

    droot = lax.custom_linear_solve(sylvester, dmatrix, solve_sylvester, symmetric=True)
    return root, droot


def _eigen_roots(matrix: Array) -> tuple[Array, Array]:
    """Eigenvectors, and square roots of eigenvalues: NaN where one is clearly negative."""
    d = matrix.shape[-1]
    if d == 0:
        return matrix, jnp.zeros((0,), matrix.dtype)
    packed = lapack.eigh(matrix)
    vectors, values = packed[:, :-1], packed[:, -1]
    noise = d * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(values))
    roots = jnp.sqrt(jnp.maximum(values, 0.0))
    return vectors, jnp.where(jnp.all(values >= -noise), roots, jnp.nan)


@jax.custom_jvp
def triangular_root(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """Lower L with L Lᵀ = F Fᵀ and a diagonal that is not negative."""
    return _root(factor)


@kernel("d k -> d d", written=small.triangular_root, tile=TILE, native="triangular_root")
def _root(factor: Array) -> Array:
    d, k = factor.shape
    # Householder's QR keeps the digits of small columns where they come after the large ones.
    sizes = jnp.max(jnp.abs(factor), axis=0, initial=0)
    factor = factor[:, jnp.argsort(sizes, descending=True)]
    wide = jnp.pad(factor, ((0, 0), (0, max(d - k, 0))))
    triangle = lapack.qr_triangle(wide.T)
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1.0, 1.0).astype(factor.dtype)
    return jnp.tril(triangle.T * signs[None])


@triangular_root.defjvp
def _(primals, tangents):
    lower = triangular_root(*primals)
    return lower, tangent_of_root(lower, *primals, *tangents)


def tangent_of_root(lower: Array, factor: Array, dfactor: Array) -> Float[Array, "d d"]:
    """`change_of_root`, whose transpose is a kernel of its own."""
    return _change(lower, factor, dfactor)


def change_of_root(lower: Array, factor: Array, dfactor: Array) -> Float[Array, "d d"]:
    """Derivative of the lower L with L Lᵀ = F Fᵀ.

    With Q = L⁻¹F (orthonormal rows) and K = L⁻¹ dF Qᵀ it is dL = L Φ(K + Kᵀ), as for `cholesky`. A
    row that depends on those before it has a zero pivot, and no column of its own: as such a row
    changes, L Lᵀ changes by what the row has in common with the rows before. No lower L can express
    what it would share with later rows; a `Root` can.
    """
    zero, lower = without_zero_pivots(lower)
    k = dot(solve(lower, dfactor), solve(lower, factor).T)
    return dot(lower, jnp.where(zero[None], 0.0, half_triangle(k + k.T)))


def cotangent_of_root(lower: Array, factor: Array, cotangent: Array) -> Float[Array, "d k"]:
    """Transpose of `change_of_root`: L⁻ᵀ (P + Pᵀ) Q, P = Φ(LᵀC) and Q = L⁻¹F."""
    return _cotangent(lower, factor, cotangent)


def _by_solves(lower: Array, factor: Array, cotangent: Array) -> Array:
    zero, lower = without_zero_pivots(lower)
    p = jnp.where(zero[None], 0.0, half_triangle(dot(lower.T, jnp.tril(cotangent))))
    return solve(lower, dot(p + p.T, solve(lower, factor)), transpose=True)


_cotangent = kernel("d d, d k, d d -> d k", written=_by_solves, tile=TILE, native="root_cotangent")(
    _by_solves
)
_change = with_transpose(change_of_root, lambda *arrays: (cotangent_of_root(*arrays),))
