"""Block diagonal: independent groups of coordinates, each with a covariance of its own.

>>> from gaussjax import Diagonal, Isotropic
>>> BlockDiagonal((Isotropic(jnp.float32(2.0), 1), Diagonal(jnp.array([1.0, 3.0])))).variance()
Array([4., 1., 9.], dtype=float32)
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gaussjax._struct import nested, structure
from gaussjax.covariances import conditionals, pairs, restricted
from gaussjax.covariances.base import Conditional, Covariance, Indices, dtype_of
from gaussjax.covariances.mixtures import skewed_divergence
from gaussjax.covariances.transport import transport
from gaussjax.linalg.semidefinite import OnSupport


@structure
class BlockDiagonal(Covariance):
    """Σ = diag(Σ₁, Σ₂, …) of one or more `blocks` of any structures; d = Σ dᵢ.

    Everything costs what it costs in the blocks. For many equal blocks use `StackedBlocks`.
    """

    blocks: tuple[Covariance, ...] = nested()

    @property
    def dim(self) -> int:
        """Sum of the sizes."""
        return sum(self._sizes)

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵢ εᵢ."""
        return self._map(lambda c, v: c.color(v), noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵢ⁻¹ vᵢ."""
        return self._map(lambda c, v: c.whiten(v), vector)

    def logdet(self) -> Float[Array, ""]:
        """Σ log|Σᵢ|."""
        return self._sum(c.logdet() for c in self.blocks)

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum over the blocks, if both have blocks of the same sizes."""
        if not isinstance(other, BlockDiagonal) or self._sizes != other._sizes:
            return None
        together = zip(self.blocks, other.blocks, strict=True)
        return self._sum(pairs.divergence(a, b) for a, b in together)

    def skewed_to(
        self, other: Covariance, shift: Array, alpha: Array, beta: Array, /, *, inside: bool
    ) -> Float[Array, ""] | None:
        """Sum over the blocks, if `other` has blocks of the same sizes or is diagonal."""
        others = self._split_like(other)
        if others is None:
            return None
        parts = zip(self.blocks, others, self._split(shift), strict=True)
        return self._sum(
            skewed_divergence(a, b, v, alpha, beta, inside=inside) for a, b, v in parts
        )

    def transport_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum over the blocks, if `other` has blocks of the same sizes or is diagonal."""
        others = self._split_like(other)
        if others is None:
            return None
        return self._sum(transport(a, b) for a, b in zip(self.blocks, others, strict=True))

    def trace_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum over the blocks, if both have blocks of the same sizes."""
        if not isinstance(other, BlockDiagonal) or self._sizes != other._sizes:
            return None
        together = zip(self.blocks, other.blocks, strict=True)
        return self._sum(pairs.trace_solve(a, b) for a, b in together)

    def fisher_solve(self, cotangent: Any, /) -> Covariance | None:
        """Block by block, if all have one."""
        together = zip(self.blocks, cotangent.blocks, strict=True)
        found = [block.fisher_solve(c) for block, c in together]
        some = tuple(x for x in found if x is not None)
        return BlockDiagonal(some) if len(some) == len(found) else None

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Block by block, if `other` has blocks of the same sizes or is diagonal."""
        others = self._split_like(other)
        if others is None:
            return None
        together = zip(self.blocks, others, strict=True)
        return BlockDiagonal(tuple(pairs.add(a, b) for a, b in together))

    def rescaled(self, factor: Array, /) -> Covariance:
        """Block by block."""
        factors = self._split(factor) if factor.ndim else [factor] * len(self.blocks)
        together = zip(self.blocks, factors, strict=True)
        return BlockDiagonal(tuple(restricted.rescaled(c, f) for c, f in together))

    def marginal(self, indices: Indices, /) -> Covariance | None:
        """Block by block, for static indices in rising blocks."""
        groups = groups_of(indices, self._sizes)
        if groups is None:
            return None
        together = zip(self.blocks, groups, strict=True)
        some = [restricted.marginal(c, i) for c, i in together if len(i)]
        return BlockDiagonal(tuple(some or [restricted.marginal(self.blocks[0], groups[0])]))

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional | None:
        """Block by block, for static indices in rising blocks."""
        rest, seen = groups_of(kept, self._sizes), groups_of(given, self._sizes)
        if rest is None or seen is None:
            return None
        parts = jnp.split(values, np.cumsum([len(i) for i in seen])[:-1])
        together = zip(self.blocks, rest, seen, parts, strict=True)
        return _independent([conditionals.conditional(*block) for block in together])

    def conditional_where(self, mask: Array, values: Array, /) -> Conditional:
        """Block by block."""
        parts = zip(self.blocks, self._split(mask), self._split(values), strict=True)
        return _independent([conditionals.conditional_where(c, m, v) for c, m, v in parts])

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """Block by block, if the noise has blocks of the same sizes or is diagonal."""
        noises = self._split_like(noise)
        if noises is None:
            return None
        parts = zip(self.blocks, noises, self._split(value), strict=True)
        return _independent([conditionals.posterior(c, e, v) for c, e, v in parts])

    @property
    def noise_dim(self) -> int:
        """Sum of the blocks' noises."""
        return sum(c.noise_dim for c in self.blocks)

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """By each block's cheapest root."""
        parts = jnp.split(noise, np.cumsum([c.noise_dim for c in self.blocks])[:-1])
        return jnp.concatenate([c.draw(v) for c, v in zip(self.blocks, parts, strict=True)])

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """Sum of the blocks' own, which may be better than ‖C⁻¹v‖²."""
        parts = self._split(vector)
        return self._sum(c.inv_quad(v) for c, v in zip(self.blocks, parts, strict=True))

    def rank(self) -> Int[Array, ""]:
        """Sum of the blocks'."""
        return sum((c.rank() for c in self.blocks), jnp.zeros((), int))

    def on_support(self, vector: Float[Array, " d"], /) -> OnSupport:
        """Sums of the blocks'."""
        parts = zip(self.blocks, self._split(vector), strict=True)
        found = zip(*[c.on_support(v) for c, v in parts], strict=True)
        return OnSupport(*[self._sum(terms) for terms in found])

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵢᵀ vᵢ."""
        return self._map(lambda c, v: c.color_transpose(v), vector)

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By each block's own solve."""
        return self._map(lambda c, v: c.solve(v), vector)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By each block's own product."""
        return self._map(lambda c, v: c.times(v), vector)

    def dense(self) -> Float[Array, "d d"]:
        """The blocks' matrices."""
        return jax.scipy.linalg.block_diag(*[c.dense() for c in self.blocks])

    def variance(self) -> Float[Array, " d"]:
        """The blocks' variances, not d products."""
        return jnp.concatenate([c.variance() for c in self.blocks])

    def stddev(self) -> Float[Array, " d"]:
        """The blocks' deviations."""
        return jnp.concatenate([c.stddev() for c in self.blocks])

    def precision_diagonal(self) -> Float[Array, " d"]:
        """The blocks' diagonals, not d solves."""
        return jnp.concatenate([c.precision_diagonal() for c in self.blocks])

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """The blocks' diagonals, not d products."""
        return jnp.concatenate([c.diagonals(width) for c in self.blocks], axis=1)

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Block by block. No d × d array."""
        return self._map(lambda c, v: c.color_symmetric(v), noise)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(c.dim for c in self.blocks)

    def _split(self, vector: Array) -> list[Array]:
        return jnp.split(vector, np.cumsum(self._sizes)[:-1])

    def _map(self, function: Callable[[Covariance, Array], Array], vector: Array) -> Array:
        parts = zip(self.blocks, self._split(vector), strict=True)
        return jnp.concatenate([function(c, v) for c, v in parts])

    def _sum(self, terms: Any) -> Array:
        return sum(terms, jnp.zeros((), dtype_of(self)))

    def _split_like(self, other: Covariance) -> list[Covariance] | None:
        """`other` as blocks of these sizes, if it has none that reach across them."""
        if isinstance(other, BlockDiagonal):
            return list(other.blocks) if self._sizes == other._sizes else None
        root = other.covariance_root()
        if root is None or root.ndim > 1:
            return None
        ends = np.cumsum(self._sizes)
        spans = [np.arange(end - n, end) for n, end in zip(self._sizes, ends, strict=True)]
        return [restricted.marginal(other, span) for span in spans]


def groups_of(indices: Indices, sizes: Sequence[int], /) -> list[np.ndarray] | None:
    """Static indices by block, counted from its start; None if they jump back to a block."""
    if not isinstance(indices, np.ndarray):
        return None
    ends = np.cumsum(sizes)
    owners = np.searchsorted(ends, indices, side="right")
    if np.any(np.diff(owners) < 0):
        return None
    starts = ends - np.array(sizes)
    return [indices[owners == i] - starts[i] for i in range(len(ends))]


def _independent(laws: list[Conditional]) -> Conditional:
    """Independent laws as one."""
    mean = jnp.concatenate([law.mean for law in laws])
    evidence = sum((law.log_evidence for law in laws), jnp.zeros((), mean.dtype))
    return Conditional(mean, BlockDiagonal(tuple(law.cov for law in laws)), evidence)
