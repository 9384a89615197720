"""How the rows of a matrix are sharded, and what each device does with its own.

The functions of a `Layout` run inside `shard_map`; `triangles.py` says how they work together.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Bool

from gaussjax.linalg._kernels import lapack
from gaussjax.linalg.products import dot

Axis = str | tuple[str, ...]

BLOCK = 256
"""Rows of a panel at most: the blocks that LAPACK factorises, on every device the same one."""

SMALLEST = 16
"""Rows of a panel at least, where a device has more than `BLOCK`."""


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


def factor_rows(layout: Layout, matrix: Array) -> Array:
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
    pivots = jnp.square(diagonal_of_rows(layout, lower))
    works = (pivots > noise * diagonal_of_rows(layout, matrix)) & jnp.all(
        jnp.isfinite(lower), axis=1
    )
    failures = lax.psum(jnp.sum(~works), layout.axis)
    return jnp.where(failures == 0, lower, jnp.nan)


def forward(layout: Layout, lower: Array, rhs: Array) -> Array:
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


def backward(layout: Layout, lower: Array, rhs: Array) -> Array:
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


def multiply(layout: Layout, a: Array, b: Array) -> Array:
    """A B: a panel of B goes to all devices. A derivative has it sent again, and keeps none."""
    panels = jnp.moveaxis(a.reshape(layout.rows, -1, layout.block), 1, 0)

    @jax.checkpoint
    def step(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        columns, start = item
        return total + dot(columns, layout.from_owner(layout.panel(b, start), start)), None

    starts = layout.block * jnp.arange(layout.dim // layout.block)
    return lax.scan(step, jnp.zeros_like(b), (panels, starts))[0]


def diagonal_of_rows(layout: Layout, local: Array) -> Array:
    """The entries of the diagonal that are in this device's rows."""
    start = lax.axis_index(layout.axis) * layout.rows
    return jnp.diagonal(lax.dynamic_slice_in_dim(local, start, layout.rows, 1))


# On the mesh --------------------------------------------------------------------------------------


def on_rows(function: Callable[..., Array], axis: Axis, *arrays: Array) -> Array:
    """`function(layout, …)` of every device's rows; so are those of the result."""
    body = functools.partial(function, _layout(axis, arrays[0].shape[0]))
    return on_mesh(body, axis, (rows_spec(axis),) * len(arrays), *arrays)


def on_mesh(
    body: Callable[..., Array], axis: Axis, specs: tuple[PartitionSpec, ...], *arrays: Array
) -> Array:
    """`body` of the parts of arrays that are placed like `specs`, its result in rows."""
    _layout(axis, arrays[0].shape[0])
    parts = [placed(x, spec, axis) for x, spec in zip(arrays, specs, strict=True)]
    return jax.shard_map(body, in_specs=specs, out_specs=rows_spec(axis))(*parts)


def placed(x: Array, spec: PartitionSpec, axis: Axis) -> Array:
    """`x` sharded so, where axes are explicit; where they are not, `shard_map` says it."""
    _size(axis)
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = all(types[name] == AxisType.Explicit for name in _names(axis))
    return jax.sharding.reshard(x, spec) if explicit else x


def _names(axis: Axis) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else axis


def rows_spec(axis: Axis) -> PartitionSpec:
    """Rows over the axis."""
    return PartitionSpec(axis)


def _layout(axis: Axis, dim: int) -> Layout:
    """Raises where the rows do not fit the mesh."""
    devices = _size(axis)
    if dim % devices:
        raise ValueError(f"d must be a multiple of the {devices} devices of {axis!r}, got {dim}.")
    rows = dim // devices
    # At most a quarter of the rows: panels must be small beside what a device holds anyway.
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
