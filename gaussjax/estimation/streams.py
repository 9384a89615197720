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
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.sums import root_of_sum
from gaussjax.linalg.triangular import solve

CHUNK = 1 << 20  # numbers that are read at a time: their centred copy stays in the cache


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
    n, d = x.shape
    each = _data.row_weights(x, weights, mask)  # checks the sizes of the whole
    size = max(CHUNK // max(d, 1), 1024)
    if n <= size:
        return _of_rows(x, weights, mask, fourth)
    count = n // size
    given = [v for v in (x, weights, mask) if v is not None]
    chunks = [v[: count * size].reshape(count, size, *v.shape[1:]) for v in given]

    def part(values: list[Array]) -> Moments:
        rows, *others = values
        rest = iter(others)
        w, m = (None if v is None else next(rest) for v in (weights, mask))
        return _of_rows(rows, w, m, fourth)

    def step(total: Moments, values: list[Array]) -> tuple[Moments, None]:
        return _merged(total, part(values)), None

    total, _ = lax.scan(step, part([v[count * size :] for v in given]), chunks)
    valid = jnp.all(each >= 0)
    return jax.tree.map(lambda v: jnp.where(valid, v, jnp.nan), total)


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


# One data set ------------------------------------------------------------------------------------


def _of_rows(x: Array, weights: Array | None, mask: Array | None, fourth: bool) -> Moments:
    weight, mean, low, rows = _data.centred(x, weights, mask)
    root = _root(_data.scatter(rows), rows.T)
    radial = jnp.zeros(0, x.dtype)
    if fourth:
        each = _data.row_weights(x, weights, mask)
        radial = _radial(rows, each, weight, _spread(root, weight))
    low = _low(jnp.zeros_like(weight), low, jnp.zeros_like(root))
    return Moments(weight, mean, root, low, radial)


def _merged(a: Moments, b: Moments) -> Moments:
    lows = a.low + b.low
    weight, weight_low = _data.two_sum(a.weight, b.weight)
    weight, weight_low = _data.two_sum(weight, weight_low + lows[0, 0])
    share = b.weight / _nonzero(weight)
    apart = (b.mean - a.mean) + (b.low - a.low)[1:, 0]
    mean, mean_low = _data.two_sum(a.mean, _data.rounded(share * apart))
    mean, mean_low = _data.two_sum(mean, mean_low + a.low[1:, 0])
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
    root = _root(gram(factor), factor)
    if 0 in root.shape:
        return root, root
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
    return _data.two_sum(root, jnp.tril(low))


def _twice(x: Array, y: Array) -> Array:
    """X Yᵀ + Y Xᵀ."""
    product = dot(x, y.T)
    return product + product.T


def _low(weight: Array, mean: Array, root: Array) -> Array:
    """What rounding took from each, as one matrix."""
    first = jnp.concatenate([weight[None], mean])[:, None]
    return jnp.concatenate([first, jnp.pad(root, ((1, 0), (0, 0)))], axis=1)


def _root(matrix: Float[Array, "d d"], factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """Lower R with R Rᵀ = F Fᵀ: from the product where every pivot keeps its digits, else by QR."""
    if 0 in factor.shape:
        return jnp.zeros_like(matrix)
    return root_of_sum(matrix, factor)


def _spread(root: Array, weight: Array) -> Array:
    """Root mean square of ‖x − μ‖."""
    return lengths(root.reshape(1, -1))[0] / jnp.sqrt(_nonzero(weight))


def _radial(rows: Array, each: Array, weight: Array, spread: Array) -> Array:
    used = each > 0
    unit = jnp.sqrt(jnp.where(used, each, 1.0)) * _nonzero(spread)
    y = jnp.where(used[:, None], rows / unit[:, None], 0.0)
    share = each / _nonzero(weight)
    squares = jnp.sum(jnp.square(y), axis=1)
    return jnp.append(dot(share * squares, y), jnp.sum(share * jnp.square(squares)))


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
