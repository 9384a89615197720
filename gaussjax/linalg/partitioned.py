"""Triangles too large for one device: Cholesky, solves and products over the rows of a mesh.

Every device of a mesh axis holds one run of m = d / devices rows of a (d, k) array. All work is by
panels of b rows or columns: a step sums one panel of at most b × d numbers over the devices, of
which all but its owner add zero, and the rest is local. So a device holds O(d²/devices + bd)
numbers, receives O(d²), and the program has one collective in each loop whatever d is.

The mesh is that of `jax.set_mesh`; its axes may be automatic or explicit. `axis` is the name of one
of its axes, or a tuple of names.

>>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
...     print(cholesky(jnp.array([[4.0, 2.0], [2.0, 2.0]]), axis="rows"))
[[2. 0.]
 [1. 1.]]
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Bool, Float

from gaussjax import _checks
from gaussjax._batching import lift
from gaussjax.linalg import lapack
from gaussjax.linalg.products import dot

Axis = str | tuple[str, ...]

BLOCK = 256
"""Rows of a panel at most: the blocks that LAPACK factorises, on every device the same one."""

SMALLEST = 16
"""Rows of a panel at least, where a device has more than `BLOCK`."""


@lift(2)
def cholesky(matrix: Float[Array, "... d d"], /, *, axis: Axis) -> Float[Array, "... d d"]:
    """Lower L with L Lᵀ = ½(A + Aᵀ), rows over `axis`; all NaN where A is not positive definite.

    `matrix` is `(..., d, d)`. O(d³ / devices): each does d³ / devices operations, three times those
    of an even distribution, since the last rows need that many and the first take part in every
    step. Derivatives in both modes are solves and products of the same kind.

    Raises:
        ValueError: the matrix is not square, there is no such axis in the mesh, or its devices
            cannot share the rows evenly.

    Source: Golub & Van Loan, Matrix Computations, §4.2 and §6.3; derivative: Murray,
    arXiv:1602.07527.
    """
    _checks.square("matrix", matrix)
    return factorise(matrix, axis)


def solve_lower(
    lower: Float[Array, "... d d"], rhs: Float[Array, "..."], /, *, axis: Axis
) -> Float[Array, "..."]:
    """L⁻¹ B by forward substitution, rows over `axis`. O(d²k / devices)

    `lower` is `(..., d, d)`, only its lower triangle is read. `rhs` is one vector `(d,)` or
    matrices `(..., d, k)`; leading axes broadcast. Derivatives in both modes are solves again.

    Raises:
        ValueError: as `cholesky`, or `rhs` has other rows.

    Source: Golub & Van Loan, Matrix Computations, §3.1 and §6.2.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    ...     print(solve_lower([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0], axis="rows"))
    [1. 2.]
    """
    return _lifted_solve(solve, lower, rhs, axis)


def solve_lower_transpose(
    lower: Float[Array, "... d d"], rhs: Float[Array, "..."], /, *, axis: Axis
) -> Float[Array, "..."]:
    """L⁻ᵀ B by back substitution, rows over `axis`. O(d²k / devices)

    Shapes, errors and derivatives as in `solve_lower`.

    Source: Golub & Van Loan, Matrix Computations, §3.1 and §6.2.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    ...     print(solve_lower_transpose([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0], axis="rows"))
    [-0.5  3. ]
    """
    return _lifted_solve(solve_transpose, lower, rhs, axis)


@lift(2)
def is_symmetric(matrix: Float[Array, "... d d"], /, *, axis: Axis) -> Bool[Array, "..."]:
    """|Aᵢⱼ − Aⱼᵢ| ≤ √ε √(Aᵢᵢ Aⱼⱼ), without a matrix on one device."""
    scale = float(jnp.finfo(matrix.dtype).eps) ** 0.25 * jnp.sqrt(jnp.abs(diagonal(matrix, axis)))
    difference = jnp.abs(matrix - transposed(matrix, axis))
    return jnp.all(difference <= scale[:, None] * scale[None])


def _lifted_solve(core: Callable[..., Array], lower: Any, rhs: Any, axis: Axis) -> Array:
    lower, rhs = _checks.real_array("lower", lower), _checks.real_array("rhs", rhs)
    _checks.square("lower", lower)
    _checks.rank_at_least("rhs", rhs, 1)
    rank = min(rhs.ndim, 2)
    _checks.same_rows("rhs", rhs.shape if rank == 2 else (*rhs.shape, 1), lower.shape[-1], "lower")
    return lift(2, rank)(core)(lower, rhs, axis=axis)


# One matrix ---------------------------------------------------------------------------------------


def factorise(matrix: Float[Array, "d d"], axis: Axis) -> Float[Array, "d d"]:
    """`cholesky` of one matrix."""
    return _factor_symmetric(0.5 * (matrix + transposed(matrix, axis)), axis)


# dL = L Φ(L⁻¹ dΣ L⁻ᵀ), as for a matrix on one device. dΣ is symmetric: dΣ L⁻ᵀ = (L⁻¹ dΣ)ᵀ.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _factor_symmetric(matrix: Array, axis: Axis) -> Array:
    return _on_rows(_factor_rows, axis, matrix)


@_factor_symmetric.defjvp
def _(axis, primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    lower = _factor_symmetric(matrix, axis)
    relative = solve(lower, transposed(solve(lower, dmatrix, axis), axis), axis)
    return lower, product(lower, triangle(relative, axis, diagonal=0.5), axis)


def solve(lower: Float[Array, "d d"], rhs: Array, axis: Axis) -> Array:
    """L⁻¹ B for one matrix; `rhs` is `(d,)` or `(d, k)`."""
    solution = lax.custom_linear_solve(
        lambda x: _product(triangle(lower, axis), x, axis),
        _placed(rhs, _rows_spec(axis), axis),
        solve=lambda _, b: _on_rows(_forward, axis, lower, b),
        transpose_solve=lambda _, b: _on_rows(_backward, axis, lower, b),
    )
    return _result(solution, axis)


def solve_transpose(lower: Float[Array, "d d"], rhs: Array, axis: Axis) -> Array:
    """L⁻ᵀ B for one matrix; `rhs` is `(d,)` or `(d, k)`."""
    like = _placed(rhs, _rows_spec(axis) if rhs.ndim == 2 else PartitionSpec(), axis)
    return jax.linear_transpose(lambda b: solve(lower, b, axis), like)(like)[0]


def product(a: Float[Array, "d d"], b: Array, axis: Axis) -> Array:
    """A B of one matrix with `b` `(d,)` or `(d, k)`."""
    return _result(_product(a, b, axis), axis)


def _product(a: Array, b: Array, axis: Axis) -> Array:
    if b.ndim == 1:
        return _on_mesh(dot, axis, (_rows_spec(axis), PartitionSpec()), a, b)
    return _on_rows(_multiply, axis, a, b)


def gram(factor: Float[Array, "d d"], axis: Axis) -> Float[Array, "d d"]:
    """F Fᵀ, symmetric to the bit."""
    whole = product(factor, transposed(factor, axis), axis)
    return triangle(whole, axis) + transposed(triangle(whole, axis, diagonal=0.0), axis)


def transposed(matrix: Float[Array, "d d"], axis: Axis) -> Float[Array, "d d"]:
    """Aᵀ, rows over the axis again."""

    def exchange(layout: Layout, local: Array) -> Array:
        return lax.all_to_all(local, layout.axis, 1, 0, tiled=True).T

    return _on_rows(exchange, axis, matrix)


def triangle(
    matrix: Float[Array, "d d"], axis: Axis, *, diagonal: float = 1.0
) -> Float[Array, "d d"]:
    """The lower triangle, its diagonal times a number."""

    def weigh(layout: Layout, local: Array) -> Array:
        below = layout.positions()[:, None] - jnp.arange(local.shape[1])[None]
        return jnp.where(below > 0, local, jnp.where(below == 0, diagonal * local, 0.0))

    return _on_rows(weigh, axis, matrix)


def whole(matrix: Array, axis: Axis) -> Array:
    """All rows on every device, for what has no rule of its own."""
    return _placed(matrix, PartitionSpec(), axis)


def diagonal(matrix: Float[Array, "d d"], axis: Axis) -> Float[Array, " d"]:
    """The diagonal."""
    return _result(_on_rows(_diagonal, axis, matrix), axis)


def diagonal_matrix(entries: Float[Array, " d"], axis: Axis) -> Float[Array, "d d"]:
    """diag(v), rows over the axis."""

    def spread(layout: Layout, local: Array) -> Array:
        on = layout.positions()[:, None] == jnp.arange(layout.dim)[None]
        return jnp.where(on, local[:, None], 0.0)

    return _on_rows(spread, axis, entries)


# On one device: its rows alone --------------------------------------------------------------------


class Layout(NamedTuple):
    """How rows are shared: every device has `rows` of the `dim`, in panels of `block`."""

    axis: Axis
    dim: int
    rows: int
    block: int

    def positions(self) -> Array:
        """Where this device's rows are in the whole."""
        return lax.axis_index(self.axis) * self.rows + jnp.arange(self.rows)

    def panel(self, local: Array, start: Array) -> Array:
        """The rows of a panel, on the device that owns it; others on the others."""
        return lax.dynamic_slice_in_dim(local, self._within(start), self.block)

    def with_panel(self, local: Array, start: Array, panel: Array) -> Array:
        """`local` with these rows, on the device that owns them."""
        old = self.panel(local, start)
        new = jnp.where(self._owned(start), panel, old)
        return lax.dynamic_update_slice_in_dim(local, new, self._within(start), 0)

    def columns(self, local: Array, start: Array) -> Array:
        """The columns of a panel."""
        return lax.dynamic_slice_in_dim(local, start, self.block, 1)

    def from_owner(self, panel: Array, start: Array) -> Array:
        """The owner's value on every device."""
        return lax.psum(jnp.where(self._owned(start), panel, 0.0), self.axis)

    def _owned(self, start: Array) -> Bool[Array, ""]:
        return start // self.rows == lax.axis_index(self.axis)

    def _within(self, start: Array) -> Array:
        return start % self.rows


def _factor_rows(layout: Layout, matrix: Array) -> Array:
    """Columns of A become those of L from left to right, a panel at a step."""
    positions = layout.positions()

    def step(j: Array, work: Array) -> Array:
        start = j * layout.block
        rows = layout.from_owner(layout.panel(work, start), start)  # of L left of A's

        def subtract(k: Array, parts: tuple[Array, Array]) -> tuple[Array, Array]:
            panel, pivot = parts
            left = layout.columns(rows, k * layout.block)
            here = layout.columns(work, k * layout.block)
            return panel - dot(here, left.T), pivot - dot(left, left.T)

        parts = layout.columns(work, start), layout.columns(rows, start)
        panel, pivot = lax.fori_loop(0, j, subtract, parts)
        factor = lapack.cholesky(pivot)
        below = (positions >= start + layout.block)[:, None]
        solved = jnp.where(below, lapack.solve(factor, panel.T, transpose=False).T, 0.0)
        solved = layout.with_panel(solved, start, factor)
        return lax.dynamic_update_slice_in_dim(work, solved, start, 1)

    lower = lax.fori_loop(0, layout.dim // layout.block, step, matrix)
    # A pivot that is rounding noise of its diagonal entry counts as zero, as on one device.
    noise = 0.5 * layout.dim * jnp.finfo(matrix.dtype).eps
    pivots = jnp.square(_diagonal(layout, lower))
    works = (pivots > noise * _diagonal(layout, matrix)) & jnp.all(jnp.isfinite(lower), axis=1)
    failures = lax.psum(jnp.sum(~works), layout.axis)
    return jnp.where(failures == 0, lower, jnp.nan)


def _forward(layout: Layout, lower: Array, rhs: Array) -> Array:
    """L⁻¹ B: a panel of the solution goes to all devices, which take it off their rows."""
    positions = layout.positions()

    def step(j: Array, x: Array) -> Array:
        start = j * layout.block
        columns = layout.columns(lower, start)
        pivot = layout.panel(columns, start)
        solved = lapack.solve(pivot, layout.panel(x, start), transpose=False)
        panel = layout.from_owner(solved, start)
        below = (positions >= start + layout.block)[:, None]
        x = layout.with_panel(x, start, panel)
        return x - dot(jnp.where(below, columns, 0.0), panel)

    x = rhs.reshape(layout.rows, -1)
    return lax.fori_loop(0, layout.dim // layout.block, step, x).reshape(rhs.shape)


def _backward(layout: Layout, lower: Array, rhs: Array) -> Array:
    """L⁻ᵀ B: what the rows below contribute to a panel is summed over the devices."""
    positions, steps = layout.positions(), layout.dim // layout.block

    def step(i: Array, x: Array) -> Array:
        start = (steps - 1 - i) * layout.block
        columns = layout.columns(lower, start)
        below = (positions >= start + layout.block)[:, None]
        known = lax.psum(dot(jnp.where(below, columns, 0.0).T, x), layout.axis)
        pivot = layout.panel(columns, start)
        panel = lapack.solve(pivot, layout.panel(x, start) - known, transpose=True)
        return layout.with_panel(x, start, panel)

    x = rhs.reshape(layout.rows, -1)
    return lax.fori_loop(0, steps, step, x).reshape(rhs.shape)


def _multiply(layout: Layout, a: Array, b: Array) -> Array:
    """A B: a panel of B goes to all devices. A derivative has it sent again, and keeps none."""
    panels = jnp.moveaxis(a.reshape(layout.rows, -1, layout.block), 1, 0)

    @jax.checkpoint
    def step(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        columns, start = item
        return total + dot(columns, layout.from_owner(layout.panel(b, start), start)), None

    starts = layout.block * jnp.arange(layout.dim // layout.block)
    return lax.scan(step, jnp.zeros_like(b), (panels, starts))[0]


def _diagonal(layout: Layout, local: Array) -> Array:
    start = lax.axis_index(layout.axis) * layout.rows
    return jnp.diagonal(lax.dynamic_slice_in_dim(local, start, layout.rows, 1))


# On the mesh --------------------------------------------------------------------------------------


def _on_rows(function: Callable[..., Array], axis: Axis, *arrays: Array) -> Array:
    """`function(layout, …)` of every device's rows; so are those of the result."""
    body = functools.partial(function, _layout(axis, arrays[0].shape[0]))
    return _on_mesh(body, axis, (_rows_spec(axis),) * len(arrays), *arrays)


def _on_mesh(
    body: Callable[..., Array], axis: Axis, specs: tuple[PartitionSpec, ...], *arrays: Array
) -> Array:
    _layout(axis, arrays[0].shape[0])
    placed = [_placed(x, spec, axis) for x, spec in zip(arrays, specs, strict=True)]
    return jax.shard_map(body, in_specs=specs, out_specs=_rows_spec(axis))(*placed)


def _placed(x: Array, spec: PartitionSpec, axis: Axis) -> Array:
    """`x` sharded so, where axes are explicit; where they are not, `shard_map` says it."""
    _size(axis)
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = all(types[name] == AxisType.Explicit for name in _names(axis))
    return jax.sharding.reshard(x, spec) if explicit else x


def _result(x: Array, axis: Axis) -> Array:
    """Where axes are explicit a matrix stays in rows, and a vector is whole on every device.

    So code for any structure can do with a vector what it likes.
    """
    return whole(x, axis) if x.ndim == 1 else x


def _names(axis: Axis) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else axis


def _rows_spec(axis: Axis) -> PartitionSpec:
    return PartitionSpec(axis)


def _layout(axis: Axis, dim: int) -> Layout:
    """Raises where the rows do not fit the mesh."""
    devices = _size(axis)
    if dim % devices:
        raise ValueError(f"d must be a multiple of the {devices} devices of {axis!r}, got {dim}.")
    rows = dim // devices
    # A quarter of the rows at most: panels are to be small beside what a device holds anyway.
    limit = min(BLOCK, max(rows // 4, 1))
    block = next((b for b in range(limit, 1, -1) if rows % b == 0), 1)
    if rows > BLOCK and block < SMALLEST:
        raise ValueError(
            f"d / devices must have a divisor from {SMALLEST} to {BLOCK}, got {dim} / {devices}."
        )
    return Layout(axis, dim, rows, block)


def _size(axis: Axis) -> int:
    """Devices along the axis; raises where the mesh has none of that name."""
    sizes = jax.sharding.get_abstract_mesh().shape
    names = _names(axis)
    if not all(name in sizes for name in names):
        raise ValueError(
            f"axis must name an axis of the mesh of jax.set_mesh, got {axis!r} for {tuple(sizes)}."
        )
    return math.prod(sizes[name] for name in names)
