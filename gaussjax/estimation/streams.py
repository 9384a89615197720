"""Weight, mean and scatter of data in parts: merged, they are those of the whole.

>>> import jax
>>> x = jax.random.normal(jax.random.key(0), (100, 2)) + 1e4
>>> parts = merge_moments(moments(x[:30]), moments(x[30:]))
>>> bool(jnp.allclose(parts.root, moments(x).root, rtol=1e-5))
True
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._lift import lift_as_whole, structure_argument
from gaussjax._struct import leaf, structure
from gaussjax.estimation import _data, _sentences
from gaussjax.linalg.factor import half_triangle
from gaussjax.linalg.moments import mean_and_scatter, root_of_rows, rounded, two_sum
from gaussjax.linalg.products import dot, gram, with_derivative_of
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.sums import root_of_sum
from gaussjax.linalg.triangular import solve


@structure
class Moments:
    """Σ w, the mean, and a lower root R of the scatter R Rᵀ = Σ w (x − μ)(x − μ)ᵀ. A pytree.

    `low` `(..., d + 1, d + 1)` is what rounding took from [[Σ w, 0], [μ, R]]: sums over millions of
    parts stay exact. `radial` is empty; `moments(..., fourth=True)` puts d + 1
    numbers there: the means of ‖y‖² y and ‖y‖⁴, for y = (x − μ)/s and s² = tr(R Rᵀ)/Σ w.

    >>> moments(jnp.eye(3))
    Moments(weight=Array(3., dtype=float32), mean=Array([...], dtype=float32), root=float32[3,3],
        low=float32[4,4], radial=Array([], ...))
    """

    weight: Float[Array, "..."] = leaf(rank=0)
    mean: Float[Array, "... d"] = leaf(rank=1)
    root: Float[Array, "... d d"] = leaf(rank=2)
    low: Float[Array, "... e e"] = leaf(rank=2)
    radial: Float[Array, "... r"] = leaf(rank=1)

    @property
    def dim(self) -> int:
        """Length of the mean."""
        return self.mean.shape[-1]


@lift_as_whole
def moments(
    x: Float[Array, "... n d"],
    *,
    weights: Float[Array, "... n"] | None = None,
    mask: Bool[Array, "... n"] | None = None,
    fourth: bool = False,
) -> Moments:
    """Moments of the rows of `x`, without forming Σ x xᵀ. O(n d²)

    `x` is `(..., n, d)`. A row of weight 2 is two equal rows: `weights` `(..., n)` are not negative
    and need not sum to one. Rows off the mask `(..., n)` are not read and may be NaN: padding.
    `fourth` adds what `ledoit_wolf` needs. Exact in float32 for data far from zero, and for nearly
    dependent columns: where the Gram matrix would lose their digits the root comes by QR. Moments
    of no rows are the neutral element of `merge_moments`. NaN where a value, or a weight,
    is not finite, or a weight negative.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: `weights` or `mask` is not one for each row.

    Source: Chan, Golub & LeVeque, The American Statistician 37 (1983), for merging.

    >>> moments([[1.0], [3.0], [jnp.nan]], mask=[True, True, False]).mean
    Array([2.], dtype=float32)
    """
    given = None if weights is None and mask is None else _data.row_weights(x, weights, mask)
    read = x if mask is None else jnp.where(mask[:, None], x, 0.0)
    c = _data.centred(x, weights, mask)  # its rows are computed for derivatives alone
    mean, low, scatter = mean_and_scatter(read, given)
    root = root_of_rows(scatter, c.rows, lambda: _data.centred(x, weights, mask).rows)
    mean, radial = with_derivative_of(mean, c.mean), jnp.zeros(0, x.dtype)
    if fourth:
        radial = _radial(read, given, c.weight, (mean, low), _spread(root, c.weight))
    low = _low(0.0 * c.weight, low, 0.0 * root)  # NaN where they are
    return Moments(c.weight, mean, root, low, radial)


@lift_as_whole
def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the data of both. Associative, by QR of the roots where digits need it. O(d³)

    So data may come in parts: a carry of `scan`, or an operator of `jax.lax.associative_scan`.
    `radial` is kept if both have it.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Chan, Golub & LeVeque, The American Statistician 37 (1983), eq. 2.1.

    >>> merge_moments(moments([[1.0]]), moments([[3.0]])).mean
    Array([2.], dtype=float32)
    """
    return _merged(a, b)


def merge_moments_over(m: Moments, axis_name: str | tuple[str, ...]) -> Moments:
    """Moments of the data of all devices along an axis of a `shard_map`, by one `psum`. O(p d³)

    Each of the p devices has the moments of its own rows, and all get those of the whole: one sum
    gathers them, and each device merges them in pairs.

    Raises:
        TypeError: `m` is not Moments.
        NameError: there is no such axis.

    >>> import jax
    >>> from jax.sharding import NamedSharding, PartitionSpec
    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> rows = NamedSharding(mesh, PartitionSpec("rows"))
    >>> whole = jax.shard_map(
    ...     lambda x: merge_moments_over(moments(x), "rows"),
    ...     mesh=mesh, in_specs=rows.spec, out_specs=PartitionSpec(),
    ... )
    >>> whole(jax.device_put(jnp.array([[1.0], [3.0]]), rows)).mean
    Array([2.], dtype=float32)
    """
    m = structure_argument("m", m, Moments)
    flat, back = ravel_pytree(m)
    count = lax.axis_size(axis_name)
    own = jnp.arange(count)[:, None] == lax.axis_index(axis_name)
    parts = jax.vmap(back)(lax.psum(jnp.where(own, flat[None], 0.0), axis_name))
    while count > 1:
        half = count // 2
        first, second, odd = (
            jax.tree.map(lambda v, s=s: v[s], parts)
            for s in (slice(half), slice(half, 2 * half), slice(2 * half, None))
        )
        merged = merge_moments(first, second)
        parts = jax.tree.map(lambda *v: jnp.concatenate(v), merged, odd)
        count -= half
    return jax.tree.map(lambda v: v[0], parts)


# Merging -----------------------------------------------------------------------------------------


def _merged(a: Moments, b: Moments) -> Moments:
    lows = a.low + b.low
    weight, weight_low = two_sum(a.weight, b.weight)
    weight, weight_low = two_sum(weight, weight_low + lows[0, 0])
    share = b.weight / _nonzero(weight)
    apart = (b.mean - a.mean) + (b.low - a.low)[1:, 0]
    mean, mean_low = two_sum(a.mean, rounded(share * apart))
    mean, mean_low = two_sum(mean, mean_low + a.low[1:, 0])
    between = jnp.sqrt(a.weight * share) * apart
    root, root_low = _merged_root(a, b, between)
    radial = jnp.zeros(0, root.dtype)
    if a.radial.size and b.radial.size:
        spread = _spread(root, weight)
        radial = (1 - share) * _moved(a, share * apart, spread)
        radial = radial + share * _moved(b, (share - 1) * apart, spread)
    return Moments(weight, mean, root, _low(weight_low, mean_low, root_low), radial)


# A small part changes a large root by less than its rounding, and thousands of them by more. With
# B the root of the larger part, R the new one and Δ = R − B (which is exact),
#   E = S_small + δδᵀ − (Δ Bᵀ + B Δᵀ + Δ Δᵀ)
# is what R Rᵀ lacks, up to the rounding of the small part; and D with D Rᵀ + R Dᵀ = E what R lacks.
def _merged_root(a: Moments, b: Moments, between: Array) -> tuple[Array, Array]:
    """The root of the sum of scatters and δδᵀ, in two words where its pivots keep their digits."""
    factor = jnp.concatenate([a.root, b.root, between[:, None]], axis=1)
    if a.dim == 0:
        return a.root, a.root
    root = root_of_sum(gram(factor), factor)
    is_first = a.weight >= b.weight
    large, small = (jnp.where(is_first, x, y) for x, y in ((a.root, b.root), (b.root, a.root)))
    change = root - large
    lacking = gram(jnp.concatenate([small, between[:, None]], axis=1)) - gram(change)
    lacking = lacking - _twice(change, large)
    lacking = lacking + _twice(a.low[1:, 1:], a.root) + _twice(b.low[1:, 1:], b.root)
    least = float(jnp.finfo(root.dtype).eps) ** 0.25
    good = jnp.all(jnp.square(jnp.diagonal(root)) > least * jnp.sum(jnp.square(root), axis=1))
    regular = jnp.where(good, root, jnp.eye(a.dim, dtype=root.dtype))
    inner = solve(regular, solve(regular, jnp.where(good, lacking, 0.0)).T)
    low = lax.stop_gradient(dot(regular, half_triangle(inner)))
    return two_sum(root, jnp.tril(low))


def _twice(x: Array, y: Array) -> Array:
    """X Yᵀ + Y Xᵀ."""
    product = dot(x, y.T)
    return product + product.T


def _low(weight: Array, mean: Array, root: Array) -> Array:
    """What rounding took from each, as one matrix."""
    first = jnp.concatenate([weight[None], mean])[:, None]
    return jnp.concatenate([first, jnp.pad(root, ((1, 0), (0, 0)))], axis=1)


def _spread(root: Array, weight: Array) -> Array:
    """Root mean square of ‖x − μ‖."""
    return lengths(root.reshape(1, -1))[0] / jnp.sqrt(_nonzero(weight))


# Σ w ‖y‖² y is W₂ (μ₂ − μ)/s, of the mean μ₂ of rows that count w ‖y‖², and W₂ in all.
def _radial(
    x: Array, each: Array | None, weight: Array, middle: tuple[Array, Array], spread: Array
) -> Array:
    (mean, low), unit = middle, _nonzero(spread)
    left = ((x - mean[None]) - low[None]) / unit
    squares = dot(jnp.square(left), jnp.ones_like(mean))  # on CPUs a third of a sum
    share = squares if each is None else each * squares
    other, other_low, _ = mean_and_scatter(x, share)
    apart = ((other - mean) + (other_low - low)) / unit
    third = with_derivative_of(jnp.sum(share) * apart, dot(share, left))
    return jnp.append(third, dot(share, squares)) / _nonzero(weight)


# With e = μ' − μ, y = (x − μ)/s and S = E y yᵀ, both in the new unit:
#   E ‖y − e‖²(y − e) = E‖y‖²y − 2 S e − (tr S + ‖e‖²) e,
#   E ‖y − e‖⁴ = E‖y‖⁴ − 4 eᵀE‖y‖²y + 4 eᵀS e + 2 ‖e‖² tr S + ‖e‖⁴.
def _moved(m: Moments, shift: Array, spread: Array) -> Array:
    """`radial` about the mean that is `shift` from this one, in the unit `spread`."""
    unit = _nonzero(spread)
    ratio, e = _spread(m.root, m.weight) / unit, shift / unit
    third, fourth = ratio**3 * m.radial[:-1], ratio**4 * m.radial[-1]
    along = dot((m.root / unit).T, e)
    stretched = dot(m.root / unit, along) / _nonzero(m.weight)
    size = jnp.sum(jnp.square(e))
    moved = third - 2 * stretched - (ratio**2 + size) * e
    fourth = fourth - 4 * jnp.sum(e * third) + 4 * jnp.sum(e * stretched)
    return jnp.append(moved, fourth + 2 * size * ratio**2 + jnp.square(size))


def _nonzero(value: Array) -> Array:
    return jnp.where(value == 0, 1.0, value)


def as_moments(data: Any, weights: Any, mask: Any, *, fourth: bool = False) -> Moments:
    """Moments of data, or those that are given: then without weights, which they have already."""
    if not isinstance(data, Moments):
        x = _errors.real_array("data", data)
        return moments(x, weights=weights, mask=mask, fourth=fourth)
    _sentences.none_with_moments(weights=weights, mask=mask)
    if fourth and data.radial.shape[-1] == 0 < data.dim:
        raise _sentences.no_fourth_moments()
    return data
