"""Block diagonal with equal blocks, stacked on an axis: one program for all of them.

>>> from gaussjax import Diagonal
>>> StackedBlocks(Diagonal(jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))).variance()
Array([ 1.,  4.,  9., 16., 25., 36.], dtype=float32)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gaussjax._struct import nested, ranks, structure
from gaussjax.covariances import conditionals, pairs, restricted
from gaussjax.covariances.base import Conditional, Covariance, Indices
from gaussjax.covariances.block_diagonal import groups_of
from gaussjax.covariances.diagonal import Diagonal
from gaussjax.covariances.mixtures import skewed_divergence
from gaussjax.covariances.transport import transport
from gaussjax.linalg.semidefinite import OnSupport


@structure
class StackedBlocks(Covariance):
    """Σ = diag(Σ₁, …, Σₙ), `blocks` one structure whose leaves have a further axis of length n.

    Like `BlockDiagonal`, but compiled once for all blocks; the axis is right before the event axes.
    """

    blocks: Covariance = nested(stacked=1)

    @property
    def dim(self) -> int:
        """n times the size of a block."""
        return self._count * self.blocks.dim

    @property
    def num_parameters(self) -> int:
        """n times those of a block."""
        return self._count * self.blocks.num_parameters

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵢ εᵢ."""
        return self._map(lambda c, v: c.color(v), noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵢ⁻¹ vᵢ."""
        return self._map(lambda c, v: c.whiten(v), vector)

    def logdet(self) -> Float[Array, ""]:
        """Σ log|Σᵢ|."""
        return jnp.sum(jax.vmap(lambda c: c.logdet())(self._each))

    def is_valid(self) -> Bool[Array, ""]:
        """Whether every block is one."""
        return jnp.all(jax.vmap(lambda c: c.is_valid())(self._each))

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum over the blocks, if both have as many of the same size."""
        if not isinstance(other, StackedBlocks) or self._shape != other._shape:
            return None
        return jnp.sum(jax.vmap(pairs.divergence)(self._each, other._each))

    def skewed_to(
        self, other: Covariance, shift: Array, alpha: Array, beta: Array, /, *, inside: bool
    ) -> Float[Array, ""] | None:
        """Sum over the blocks, if `other` has as many of the same size or is diagonal."""
        others = self._split_like(other)
        if others is None:
            return None

        def of_block(a: Covariance, b: Covariance, v: Array) -> Array:
            return skewed_divergence(a, b, v, alpha, beta, inside=inside)

        return jnp.sum(jax.vmap(of_block)(self._each, others, shift.reshape(self._shape)))

    def transport_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum over the blocks, if `other` has as many of the same size or is diagonal."""
        others = self._split_like(other)
        return None if others is None else jnp.sum(jax.vmap(transport)(self._each, others))

    def trace_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum over the blocks, if both have as many of the same size."""
        if not isinstance(other, StackedBlocks) or self._shape != other._shape:
            return None
        return jnp.sum(jax.vmap(pairs.trace_solve)(self._each, other._each))

    def fisher_solve(self, cotangent: Any, /) -> Covariance | None:
        """Block by block."""
        found = jax.vmap(lambda a, c: a.fisher_solve(c))(self._each, cotangent._each)
        return None if found is None else StackedBlocks(found)

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Block by block, if `other` has as many of the same size or is diagonal."""
        others = self._split_like(other)
        return None if others is None else StackedBlocks(jax.vmap(pairs.add)(self._each, others))

    def rescaled(self, factor: Array, /) -> Covariance:
        """Block by block."""
        factors = factor.reshape(self._shape) if factor.ndim else jnp.repeat(factor, self._count)
        return StackedBlocks(jax.vmap(restricted.rescaled)(self._each, factors))

    def marginal(self, indices: Indices, /) -> Covariance | None:
        """Block by block, for static indices that are the same in every block."""
        inner = self._pattern(indices)
        if inner is None:
            return None
        return StackedBlocks(jax.vmap(lambda c: restricted.marginal(c, inner))(self._each))

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional | None:
        """Block by block, for static indices that are the same in every block."""
        rest, seen = self._pattern(kept), self._pattern(given)
        if rest is None or seen is None:
            return None
        parts = values.reshape(self._count, len(seen))
        return _independent(
            jax.vmap(lambda c, v: conditionals.conditional(c, rest, seen, v))(self._each, parts)
        )

    def conditional_where(self, mask: Array, values: Array, /) -> Conditional:
        """Block by block."""
        parts = mask.reshape(self._shape), values.reshape(self._shape)
        return _independent(jax.vmap(conditionals.conditional_where)(self._each, *parts))

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """Block by block, if the noise has as many of the same size or is diagonal."""
        noises = self._split_like(noise)
        if noises is None:
            return None
        values = value.reshape(self._shape)
        return _independent(jax.vmap(conditionals.posterior)(self._each, noises, values))

    @property
    def noise_dim(self) -> int:
        """n times a block's noise."""
        return self._count * self.blocks.noise_dim

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """By the blocks' cheapest root."""
        parts = noise.reshape(self._count, self.blocks.noise_dim)
        return jax.vmap(lambda c, v: c.draw(v))(self._each, parts).ravel()

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """Sum of the blocks' own, which may be better than ‖C⁻¹v‖²."""
        parts = vector.reshape(self._shape)
        return jnp.sum(jax.vmap(lambda c, v: c.inv_quad(v))(self._each, parts))

    def rank(self) -> Int[Array, ""]:
        """Sum of the blocks'."""
        return jnp.sum(jax.vmap(lambda c: c.rank())(self._each))

    def on_support(self, vector: Float[Array, " d"], /) -> OnSupport:
        """Sums of the blocks'."""
        found = jax.vmap(lambda c, v: c.on_support(v))(self._each, vector.reshape(self._shape))
        return jax.tree.map(jnp.sum, found)

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵢᵀ vᵢ."""
        return self._map(lambda c, v: c.color_transpose(v), vector)

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By the blocks' own solve."""
        return self._map(lambda c, v: c.solve(v), vector)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By the blocks' own product."""
        return self._map(lambda c, v: c.times(v), vector)

    def dense(self) -> Float[Array, "d d"]:
        """The blocks' matrices."""
        matrices = jax.vmap(lambda c: c.dense())(self._each)
        own = jnp.eye(self._count, dtype=bool)[:, None, :, None]
        return jnp.where(own, matrices[:, :, None, :], 0.0).reshape(self.dim, self.dim)

    def variance(self) -> Float[Array, " d"]:
        """The blocks' variances, not d products."""
        return jax.vmap(lambda c: c.variance())(self._each).ravel()

    def stddev(self) -> Float[Array, " d"]:
        """The blocks' deviations."""
        return jax.vmap(lambda c: c.stddev())(self._each).ravel()

    def precision_diagonal(self) -> Float[Array, " d"]:
        """The blocks' diagonals, not d solves."""
        return jax.vmap(lambda c: c.precision_diagonal())(self._each).ravel()

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """The blocks' diagonals, not d products."""
        parts = jax.vmap(lambda c: c.diagonals(width), out_axes=1)(self._each)
        return parts.reshape(width + 1, self.dim)

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Block by block. No d × d array."""
        return self._map(lambda c, v: c.color_symmetric(v), noise)

    @property
    def _count(self) -> int:
        leaves = zip(jax.tree.leaves(self.blocks), ranks(self.blocks), strict=True)
        sizes = [np.shape(leaf)[np.ndim(leaf) - rank - 1] for leaf, rank in leaves]
        return next((n for n in sizes if n != 1), 1)

    @property
    def _each(self) -> Covariance:
        """The blocks with all of them on every leaf, to be mapped over; some may be shared."""
        leaves, treedef = jax.tree.flatten(self.blocks)
        whole = [jnp.broadcast_to(leaf, (self._count, *leaf.shape[1:])) for leaf in leaves]
        return jax.tree.unflatten(treedef, whole)

    @property
    def _shape(self) -> tuple[int, int]:
        return self._count, self.blocks.dim

    def _map(self, function: Callable[[Any, Array], Array], vector: Array) -> Array:
        return jax.vmap(function)(self._each, vector.reshape(self._shape)).ravel()

    def _pattern(self, indices: Indices) -> np.ndarray | None:
        """The static indices within a block, where they are the same in all and not empty."""
        groups = groups_of(indices, [self.blocks.dim] * self._count)
        if not groups or not len(groups[0]):
            return None
        return groups[0] if all(np.array_equal(g, groups[0]) for g in groups) else None

    def _split_like(self, other: Covariance) -> Covariance | None:
        """`other` as blocks of this shape, if it has none that reach across them."""
        if isinstance(other, StackedBlocks):
            return other._each if self._shape == other._shape else None
        root = other.covariance_root()
        return None if root is None or root.ndim > 1 else Diagonal(root.reshape(self._shape))


def _independent(laws: Conditional) -> Conditional:
    """Stacked independent laws as one."""
    return Conditional(laws.mean.ravel(), StackedBlocks(laws.cov), jnp.sum(laws.log_evidence))
