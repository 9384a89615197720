"""Unrolled kernels for small matrices: the same mathematics as scalar operations.

XLA hands a batch of small factorisations to LAPACK one matrix at a time. Written out as scalar
operations over a static d, and mapped over the batch by `vmap`, they fuse into a few passes.

Two conventions decide the speed. XLA materialises a quotient with several uses, but recomputes a
product in each use. So results that are one sum of scalars multiply by reciprocals and compile to a
single pass; results with many entries divide, or they would repeat the work for each entry.

All functions take one matrix or vector, read only the lower part of a triangle, and have no
derivative: their callers define it in closed form.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax.linalg._kernels import limits

NEAR = 1e3
"""Units of rounding within which a vector is taken to be on the support of a singular law."""

Column = list[Array]  # the scalars of one column (or vector), by row


def cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Lower Cholesky factor; NaN where a pivot is negative."""
    columns: list[Array] = []  # column j from row j on
    for j in range(matrix.shape[-1]):
        rest = matrix[j:, j]
        for k, column in enumerate(columns):
            rest = rest - column[j - k :] * column[j - k]
        columns.append(rest / jnp.sqrt(rest[0]))
    return _lower_of_columns(columns, matrix)


def cholesky_cotangent(
    lower: Float[Array, "d d"], cotangent: Float[Array, "d d"]
) -> Float[Array, "d d"]:
    """Σ̄ of Σ = L Lᵀ, symmetric, from that of L: the columns of the factorisation in reverse.

    Source: Murray, arXiv:1602.07527, §4.2.
    """
    rows, bar, d = _entries(lower), _entries(cotangent), lower.shape[-1]
    for j in reversed(range(d)):
        pivot, below = rows[j][j], range(j + 1, d)
        c = [bar[i][j] / pivot for i in below]
        bar[j][j] = _minus_products(bar[j][j], c, [rows[i][j] for i in below]) / pivot
        for k in range(j):
            rest = bar[j][k] - bar[j][j] * rows[j][k]
            bar[j][k] = _minus_products(rest, c, [rows[i][k] for i in below])
        for i, x in zip(below, c, strict=True):
            bar[i][:j] = [y - x * z for y, z in zip(bar[i][:j], rows[j][:j], strict=True)]
            bar[i][j] = x
    # An entry below the diagonal stands for two of Σ, one on it is halved as in Φ.
    full = [bar[max(i, k)][min(i, k)] for i in range(d) for k in range(d)]
    return 0.5 * jnp.stack(full).reshape(d, d)


def solve_lower(lower: Float[Array, "d d"], rhs: Float[Array, " d"]) -> Float[Array, " d"]:
    """L⁻¹ b by forward substitution."""
    return _vector(forward(_entries(lower), scalars(rhs)), rhs)


def solve_lower_transpose(
    lower: Float[Array, "d d"], rhs: Float[Array, " d"]
) -> Float[Array, " d"]:
    """L⁻ᵀ b by back substitution."""
    return _vector(_backward(_entries(lower), scalars(rhs)), rhs)


def lower_times_vector(
    lower: Float[Array, "d d"], vector: Float[Array, " d"]
) -> Float[Array, " d"]:
    """L v, d ≥ 1, as a sum of columns, which fuse where a reduction over the last axis does not."""
    rows = jnp.arange(lower.shape[-1])
    return total(
        [jnp.where(rows >= j, lower[:, j], 0.0) * x for j, x in enumerate(scalars(vector))]
    )


def product(a: Float[Array, "n k"], b: Float[Array, "k m"]) -> Float[Array, "n m"]:
    """A B as a sum of outer products, which fuses."""
    if b.shape[0] == 0:
        return jnp.zeros((a.shape[0], b.shape[1]), a.dtype)
    return functools.reduce(jnp.add, [a[:, k, None] * b[None, k] for k in range(b.shape[0])])


def triangular_root(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """Lower L with L Lᵀ = F Fᵀ by modified Gram-Schmidt on the rows of F.

    Its L is as accurate as Householder's (Björck 1967); only the orthogonal factor is not. Each row
    is scaled by its own unit meanwhile, so that no square overflows.
    """
    units = nonzero(jnp.max(jnp.abs(factor), axis=1, initial=0))
    rows = list(factor / units[:, None])
    columns: list[Array] = []  # column j from row j on
    for j in range(factor.shape[0]):
        norm = jnp.sqrt(jnp.sum(jnp.square(rows[j])))
        unit = rows[j] / nonzero(norm)
        below = [jnp.sum(unit * row) for row in rows[j + 1 :]]
        rows[j + 1 :] = [row - x * unit for row, x in zip(rows[j + 1 :], below, strict=True)]
        columns.append(jnp.stack([norm, *below]) * units[j:])
    return _lower_of_columns(columns, factor[:, :0])


def logdet(lower: Float[Array, "d d"]) -> Float[Array, ""]:
    """Σ log Lᵢᵢ, −∞ where the diagonal has a zero, NaN where it is negative."""
    pivots = [lower[i, i] for i in range(lower.shape[-1])]
    return logdet_of_pivots(pivots) if pivots else jnp.zeros((), lower.dtype)


def largest(vector: Float[Array, " d"]) -> Float[Array, ""]:
    """Max |vᵢ|, NaN if an entry is."""
    return functools.reduce(jnp.maximum, scalars(jnp.abs(vector)), jnp.zeros((), vector.dtype))


def inv_quad(lower: Float[Array, "d d"], vector: Float[Array, " d"]) -> Float[Array, ""]:
    """‖L⁻¹ v‖², d ≥ 1, for a singular L as in `inv_quad_lower`: L⁻¹ v is never stored."""
    rows, entries = _entries(lower), scalars(vector)
    near = NEAR * float(jnp.finfo(vector.dtype).eps)
    zeros = [row[-1] == 0 for row in rows]
    reciprocals = _reciprocals([[nonzero(row[-1])] for row in rows])
    is_off = is_lost = jnp.zeros((), bool)
    w: Column = []
    for i, row in enumerate(rows):
        rest = _minus_products(entries[i], row[:i], w)
        w.append(jnp.where(zeros[i], 0.0, rest * reciprocals[i]))
        size = total([jnp.abs(x) for x in row])
        is_off = is_off | (zeros[i] & (jnp.abs(rest) > near * (jnp.abs(entries[i]) + size)))
        is_lost = is_lost | (size == jnp.inf) | (zeros[i] & jnp.isnan(rest))
        for zero, entry in zip(zeros, row[:i], strict=False):
            is_lost = is_lost | (zero & (entry != 0))
    distance = jnp.where(is_off, jnp.inf, total([x * x for x in w]))
    return jnp.where(is_lost, jnp.nan, distance)


def relative(
    a: Float[Array, "d d"], b: Float[Array, "d d"], shift: Float[Array, " d"]
) -> tuple[list[Column], Column]:
    """Columns of E = B⁻¹(A − B) for lower triangles, column j from row j on, and B⁻¹ shift.

    For sums: it multiplies by reciprocals.
    """
    rows = _entries(b)
    return _relative(_entries(a), rows, scalars(shift), _reciprocals(rows))


def quotient(
    a: Float[Array, "d d"], b: Float[Array, "d d"], shift: Float[Array, " d"]
) -> tuple[list[Column], Column]:
    """Columns of M = B⁻¹A for lower triangles, column j from row j on, and B⁻¹ shift.

    For sums, as in `relative`.
    """
    rows = _entries(b)
    return _quotient(_entries(a), rows, scalars(shift), _reciprocals(rows))


def quotient_gradients(
    a: Float[Array, "d d"], b: Float[Array, "d d"], shift: Float[Array, " d"]
) -> tuple[Float[Array, "d d"], Float[Array, "d d"], Float[Array, " d"]]:
    """Halves of the gradients of ‖B⁻¹A‖² + ‖B⁻¹ shift‖²; `trace.py` has the formula."""
    d = a.shape[-1]
    rows = _entries(b)
    m, w = _quotient(_entries(a), rows, scalars(shift))
    h = [_backward(rows, column, start=j) for j, column in enumerate(m)]  # H = B⁻ᵀM, lower part
    u = _backward(rows, w)
    grad_a = [[h[k][i - k] for k in range(i + 1)] for i in range(d)]
    grad_b = [
        [-sum((h[j][i - j] * m[j][k - j] for j in range(k + 1)), u[i] * w[k]) for k in range(i + 1)]
        for i in range(d)
    ]
    return _lower_matrix(grad_a, a), _lower_matrix(grad_b, b), _vector(u, shift)


def divergence_gradients(
    a: Float[Array, "d d"], b: Float[Array, "d d"], shift: Float[Array, " d"]
) -> tuple[Float[Array, "d d"], Float[Array, "d d"], Float[Array, " d"]]:
    """Halves of the gradients of the divergence of roots; `divergence.py` has the formula."""
    d = a.shape[-1]
    rows = _entries(b)
    e, w = _relative(_entries(a), rows, scalars(shift))
    h = [_backward(rows, column, start=j) for j, column in enumerate(e)]  # H = B⁻ᵀE, lower part
    u = _backward(rows, w)
    grad_a: list[Column] = []
    grad_b: list[Column] = []
    for i in range(d):
        grad_a.append([h[k][i - k] for k in range(i)] + [h[i][0] + e[i][0] / a[i, i]])
        row = []
        for k in range(i + 1):
            products = [h[j][i - j] * e[j][k - j] for j in range(k + 1)]
            row.append(-sum(products, h[k][i - k] + u[i] * w[k]))
        row[i] = row[i] - e[i][0] / rows[i][i]
        grad_b.append(row)
    return _lower_matrix(grad_a, a), _lower_matrix(grad_b, b), _vector(u, shift)


def scalars(vector: Array) -> Column:
    """The entries of a vector."""
    return [vector[i] for i in range(vector.shape[-1])]


def forward(
    rows: list[Column], rhs: Column, *, start: int = 0, reciprocals: Column | None = None
) -> Column:
    """L⁻¹ b for a b that is zero above row `start`."""
    out: Column = []
    for i, s in enumerate(rhs, start):
        s = _minus_products(s, rows[i][start:i], out)
        out.append(s / rows[i][i] if reciprocals is None else s * reciprocals[i])
    return out


def total(terms: Column) -> Array:
    """The sum of at least one scalar or vector."""
    return functools.reduce(jnp.add, terms)


def logdet_of_pivots(pivots: Column) -> Array:
    """Σ log of scalars, −∞ where one is zero, NaN where one is negative or infinite."""
    return total([jnp.log(jnp.where((x >= 0) & (x < jnp.inf), x, jnp.nan)) for x in pivots])


def all_of(conditions: Array) -> Array:
    """Whether all entries of a vector are true; one by one where that fuses."""
    if not 0 < conditions.shape[0] <= limits.VECTOR:
        return jnp.all(conditions)
    return functools.reduce(jnp.logical_and, scalars(conditions))


def is_regular(lower: Float[Array, "d d"]) -> Bool[Array, ""]:
    """Whether no pivot is zero."""
    if not 0 < lower.shape[-1] <= limits.VECTOR:
        return jnp.all(jnp.diagonal(lower) != 0)
    pivots = [lower[i, i] for i in range(lower.shape[-1])]
    return functools.reduce(jnp.logical_and, [pivot != 0 for pivot in pivots])


def diagonal(lower: Float[Array, "d d"]) -> Float[Array, " d"]:
    """The diagonal; as single entries where that fuses."""
    d = lower.shape[-1]
    if not 0 < d <= limits.VECTOR:
        return jnp.diagonal(lower)
    return jnp.stack([lower[i, i] for i in range(d)])


def nonzero(x: Array) -> Array:
    """x with 1 in place of 0, to divide by."""
    return jnp.where(x == 0, 1.0, x)


def _entries(lower: Array) -> list[Column]:
    return [[lower[i, j] for j in range(i + 1)] for i in range(lower.shape[-1])]


def _reciprocals(rows: list[Column]) -> Column:
    """1 / Lᵢᵢ, or NaN where that is not positive: two wrong signs must not make a right one."""
    return [1 / jnp.where(row[-1] > 0, row[-1], jnp.nan) for row in rows]


def _relative(
    a: list[Column], b: list[Column], shift: Column, reciprocals: Column | None = None
) -> tuple[list[Column], Column]:
    difference = [[x - y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    return _quotient(difference, b, shift, reciprocals)


def _quotient(
    a: list[Column], b: list[Column], shift: Column, reciprocals: Column | None = None
) -> tuple[list[Column], Column]:
    d = len(b)
    columns = [
        forward(b, [a[i][j] for i in range(j, d)], start=j, reciprocals=reciprocals)
        for j in range(d)
    ]
    return columns, forward(b, shift, reciprocals=reciprocals)


def _backward(rows: list[Column], rhs: Column, start: int = 0) -> Column:
    """Rows from `start` on of L⁻ᵀ b."""
    d = len(rows)
    out: Column = []  # from the last row upwards
    for i in reversed(range(start, d)):
        below = [rows[k][i] for k in reversed(range(i + 1, d))]
        out.append(_minus_products(rhs[i - start], below, out) / rows[i][i])
    return out[::-1]


def _minus_products(s: Array, left: Sequence[Array], right: Sequence[Array]) -> Array:
    for x, y in zip(left, right, strict=True):
        s = s - x * y
    return s


def _vector(scalars: Column, like: Array) -> Array:
    return jnp.stack(scalars) if scalars else jnp.zeros_like(like)


def _lower_of_columns(columns: list[Array], if_empty: Array) -> Array:
    padded = [jnp.pad(column, (j, 0)) for j, column in enumerate(columns)]
    return jnp.stack(padded, axis=1) if padded else if_empty


def _lower_matrix(rows: list[Column], like: Array) -> Array:
    d = len(rows)
    if d == 0:
        return jnp.zeros_like(like)
    # A constant would not be batched, and would have another sharding than the scalars beside it.
    zero = (rows[0][0] < rows[0][0]).astype(like.dtype)
    flat = [x for row in rows for x in [*row, *[zero] * (d - len(row))]]
    return jnp.stack(flat).reshape(d, d)
