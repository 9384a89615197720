"""Optimal transport between Gaussians, by roots rotated towards each other."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift, lift_as_whole
from gaussjax._mapping import all_of_batch
from gaussjax.covariances import Cholesky, restricted
from gaussjax.covariances.transport import transport, transported
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.laws.procrustes import rotation
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import root_of_square, unit_of
from gaussjax.linalg.semidefinite import rank_revealing_root


@lift
def wasserstein2(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """W₂(p, q) = √(‖μp − μq‖² + min_U ‖Fp − Fq U‖²), Σ = F Fᵀ, over orthogonal U. O(d³)

    The 2-Wasserstein distance itself, in the units of x. Both may be singular; between roots of k
    and m < d columns it is O(d k m), between diagonals, isotropic and circulant covariances O(d),
    and Kronecker products and blocks go part by part. All others take O(d³) and d × d arrays, also
    low rank, Toeplitz and bands: the sum of the singular values of FpᵀFq has no closed form in
    their parts. The error is of the order of rounding times the deviations, at any separation. At
    p = q it is zero, with the subgradient zero, and has no second derivative.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Bhatia, Jain & Lim, Expositiones Mathematicae 37 (2019), theorem 1 and eq. 3.

    >>> from gaussjax import from_scale
    >>> wasserstein2(from_scale([3.0, 0.0], [1.0, 1.0]), from_scale([0.0, 0.0], [1.0, 5.0]))
    Array(5., dtype=float32)
    """
    shift = p.mean - q.mean
    sizes = jnp.concatenate([jnp.abs(shift), p.cov.stddev(), q.cov.stddev()])
    unit = unit_of(0.5 * jnp.max(sizes, initial=0))  # squares may leave the range of the dtype
    covs = [restricted.rescaled(c, 1 / unit) for c in (p.cov, q.cov)]
    return unit * root_of_square(jnp.sum(jnp.square(shift / unit)) + transport(*covs))


@lift
def frechet_distance(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """‖μp − μq‖² + tr(Σp + Σq − 2(ΣpΣq)^½) ≥ 0: W₂², the FID of two sets of features. O(d³)

    For n < d features `(n, d)` take the law `from_root(mean, (x − mean)ᵀ / √(n − 1))`: then the
    cost is O(d n²), and no d × d array is made. Exact, costs and singular laws as `wasserstein2`;
    differentiable everywhere, zero with a zero gradient at p = q. Second derivatives are NaN where
    a root with more columns than rows makes a singular law.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Heusel et al., arXiv:1706.08500, eq. 6; Dowson & Landau, J. Multivariate Analysis 12
    (1982).

    >>> from gaussjax import from_scale
    >>> frechet_distance(from_scale([3.0, 0.0], [1.0, 1.0]), from_scale([0.0, 0.0], [1.0, 5.0]))
    Array(25., dtype=float32)
    """
    return jnp.sum(jnp.square(p.mean - q.mean)) + transport(p.cov, q.cov)


@lift
def wasserstein2_map(p: Gaussian, q: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """T(x) = μq + Σp^−½(Σp^½ΣqΣp^½)^½Σp^−½(x − μp): takes p to q at the least cost. O(d³)

    `x` is `(..., d)`. T is the gradient of a convex function, and T(x) ~ q for x ~ p; q may be
    singular, p may not (NaN). O(d) for diagonals.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Knott & Smith, J. Optimization Theory and Applications 43 (1984).

    >>> from gaussjax import from_scale
    >>> p, q = from_scale([0.0, 0.0], [1.0, 1.0]), from_scale([1.0, 1.0], [2.0, 3.0])
    >>> wasserstein2_map(p, q, [1.0, 1.0])
    Array([3., 4.], dtype=float32)
    """
    return q.mean + transported(p.cov, q.cov, x - p.mean)


def wasserstein2_barycenter(
    g: Gaussian, *, weights: ArrayLike | None = None, steps: int = 200
) -> Gaussian:
    """The Gaussian q with the least Σ wᵢ W₂²(gᵢ, q) over the first batch axis of g. O(k d³) a step

    `weights` is `(..., k)` and adds up to 1, else the result is NaN; equal if None. Every step
    turns the roots Fᵢ to that of q and takes their mean, C ← Σ wᵢ Fᵢ Uᵢ: a fixed point of the
    optimality condition, to which it converges linearly where one gᵢ is regular; where they
    commute, at once. It ends when rounding is all that changes; where `steps` are not enough for
    that, as with narrow laws in few dimensions, the covariance is NaN. Derivatives go through the
    steps. The result has a `Cholesky` covariance.

    Raises:
        ValueError: g has no batch axis, an empty one, or weights of another number.

    Source: Agueh & Carlier, SIAM J. Math. Analysis 43 (2011); Álvarez-Esteban et al., J. Math.
    Analysis and Applications 441 (2016).

    >>> from gaussjax import from_isotropic, stddev
    >>> stddev(wasserstein2_barycenter(from_isotropic([[0.0], [0.0]], [1.0, 3.0])))
    Array([2.], dtype=float32)
    """
    _errors.instance("g", g, Gaussian, order="g, *, weights, steps")
    means, roots = _parts(g)
    _errors.rank_at_least("mean of g", means, 2)
    count = means.shape[0]
    if count == 0:
        raise ValueError(f"g must have one Gaussian or more, got batch shape {means.shape[:-1]}.")
    if weights is None:
        weights = jnp.full(count, 1 / count, means.dtype)
    weights = _errors.real_array("weights", weights, means.dtype)
    _errors.rank_at_least("weights", weights, 1)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    near = jnp.abs(total - 1) <= 8 * count * float(jnp.finfo(weights.dtype).eps)
    valid = jnp.all(weights >= 0, axis=-1, keepdims=True) & near
    weights = jnp.where(valid, weights, jnp.nan)
    if weights.shape[-1] != count:
        raise ValueError(f"weights must have {count} entries, got shape {weights.shape}.")
    aside = jnp.moveaxis(means, 0, -2), jnp.moveaxis(roots, 0, -3), weights
    return _barycenter(*aside, steps=_errors.dimension("steps", steps))


@lift_as_whole
def _parts(g: Gaussian) -> tuple[Array, Array]:
    """Mean and triangle of each, with the whole batch."""
    return g.mean, restricted.triangle(g.cov)


@lift
def _barycenter(
    means: Float[Array, "... k d"],
    roots: Float[Array, "... k d d"],
    weights: Float[Array, "... k"],
    *,
    steps: int,
) -> Gaussian:
    weights = weights / jnp.sum(weights)
    limit = 8 * float(jnp.finfo(weights.dtype).eps) * math.sqrt(means.shape[-1])
    shares = weights[:, None, None]
    unit = unit_of(jnp.max(jnp.abs(roots), initial=0))  # squares may leave the range of the dtype
    roots = roots / unit

    @jax.checkpoint
    def moved(root: Array) -> Array:
        turned = jax.vmap(lambda f: dot(f, rotation(root, f)))(roots)
        return jnp.sum(shares * turned, axis=0)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        root, change = carry
        moves = change > limit
        following = lax.cond(all_of_batch(~moves), lambda x: x, moved, root)
        following = jnp.where(moves, following, root)  # whatever others in a batch do
        size = jnp.linalg.norm(lax.stop_gradient(root))
        apart = jnp.linalg.norm(lax.stop_gradient(following - root))
        return (following, jnp.where(size == 0, 0.0, apart / size)), None

    start = jnp.sum(shares * roots, axis=0), jnp.full((), jnp.inf, roots.dtype)
    (root, change), _ = lax.scan(step, start, None, length=steps)
    root = jnp.where(change <= 32 * limit, root, jnp.nan)
    return Gaussian(dot(weights, means), Cholesky(unit * rank_revealing_root(root)))
