"""Forms: which covariance a vector makes, and in which order its entries are read.

>>> LowRankForm(2).size(10)
30
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax.covariances import (
    BandedPrecision,
    Cholesky,
    Covariance,
    Diagonal,
    Isotropic,
    LowRank,
    PrecisionCholesky,
)
from gaussjax.parametrize import factors
from gaussjax.parametrize.positive import Positive


class Form(abc.ABC):
    """A covariance structure and the order of its free numbers; written for one covariance.

    To write your own, make a frozen dataclass with these members.
    """

    @abc.abstractmethod
    def size(self, dim: int) -> int:
        """How many entries a covariance takes."""

    @abc.abstractmethod
    def covariance(
        self, entries: Float[Array, " n"], dim: int, diagonal: Positive, /
    ) -> Covariance:
        """The covariance that they make."""

    @abc.abstractmethod
    def entries(self, cov: Any, diagonal: Positive, /) -> Float[Array, " n"]:
        """The entries of a covariance of this form: the inverse of `covariance`."""

    @abc.abstractmethod
    def log_jacobian(
        self, entries: Float[Array, " n"], dim: int, diagonal: Positive, /
    ) -> Float[Array, ""]:
        """log|∂(numbers of the structure)/∂(entries)|."""

    @abc.abstractmethod
    def isotropic(self, dim: int, scale: float) -> Covariance:
        """scale² I in this form, where a fit may start."""


@dataclasses.dataclass(frozen=True)
class IsotropicForm(Form):
    """`Isotropic`: one standard deviation for all coordinates; none of no dimension."""

    def size(self, dim: int) -> int:
        """One."""
        return min(dim, 1)

    def covariance(self, entries: Array, dim: int, diagonal: Positive, /) -> Covariance:
        """The deviation from the positive map."""
        return Isotropic(diagonal(entries[0]) if dim else jnp.ones((), entries.dtype), dim)

    def entries(self, cov: Any, diagonal: Positive, /) -> Array:
        """The inverse."""
        return diagonal.inverse(cov.scale)[None][: cov.dim]

    def log_jacobian(self, entries: Array, dim: int, diagonal: Positive, /) -> Array:
        """Its log slope."""
        return jnp.sum(diagonal.log_slope(entries))

    def isotropic(self, dim: int, scale: float) -> Covariance:
        """The only one."""
        return Isotropic(jnp.asarray(scale, float), dim)


@dataclasses.dataclass(frozen=True)
class DiagonalForm(Form):
    """`Diagonal`: d standard deviations."""

    def size(self, dim: int) -> int:
        """d."""
        return dim

    def covariance(self, entries: Array, dim: int, diagonal: Positive, /) -> Covariance:
        """Deviations from the positive map."""
        return Diagonal(diagonal(entries))

    def entries(self, cov: Any, diagonal: Positive, /) -> Array:
        """The inverse."""
        return diagonal.inverse(cov.scale)

    def log_jacobian(self, entries: Array, dim: int, diagonal: Positive, /) -> Array:
        """Sum of log slopes."""
        return jnp.sum(diagonal.log_slope(entries))

    def isotropic(self, dim: int, scale: float) -> Covariance:
        """Equal deviations."""
        return Diagonal(jnp.full(dim, scale))


@dataclasses.dataclass(frozen=True)
class LowRankForm(Form):
    """`LowRank`: d deviations, then W `(d, rank)` row by row, as it is.

    The map to the deviations and W is one to one, but Σ is the same for W and W Q with any rotation
    Q. W = 0 is a stationary point of every function of Σ, so do not start a fit there.
    """

    rank: int

    def __post_init__(self) -> None:
        """Refuses what is no size."""
        object.__setattr__(self, "rank", _errors.dimension("rank", self.rank))

    def size(self, dim: int) -> int:
        """d(1 + rank)."""
        return dim * (1 + self.rank)

    def covariance(self, entries: Array, dim: int, diagonal: Positive, /) -> Covariance:
        """Deviations from the positive map, and the rest of the entries in rows."""
        return LowRank(diagonal(entries[:dim]), entries[dim:].reshape(dim, self.rank))

    def entries(self, cov: Any, diagonal: Positive, /) -> Array:
        """The inverse."""
        return jnp.concatenate([diagonal.inverse(cov.scale), cov.factor.ravel()])

    def log_jacobian(self, entries: Array, dim: int, diagonal: Positive, /) -> Array:
        """Sum of log slopes of the deviations."""
        return jnp.sum(diagonal.log_slope(entries[:dim]))

    def isotropic(self, dim: int, scale: float) -> Covariance:
        """W = 0."""
        return LowRank(jnp.full(dim, scale), jnp.zeros((dim, self.rank)))


@dataclasses.dataclass(frozen=True)
class BandedForm(Form):
    """`BandedPrecision`: the diagonal of L, then its subdiagonals, d − k entries in the k-th."""

    bandwidth: int

    def __post_init__(self) -> None:
        """Refuses what is no size."""
        object.__setattr__(self, "bandwidth", _errors.dimension("bandwidth", self.bandwidth))

    def size(self, dim: int) -> int:
        """d + (d − 1) + …, bandwidth + 1 terms."""
        return sum(max(dim - k, 0) for k in range(self.bandwidth + 1))

    def covariance(self, entries: Array, dim: int, diagonal: Positive, /) -> Covariance:
        """The diagonal from the positive map; subdiagonals as they are, and zeros past the end."""
        rows = [diagonal(entries[:dim])]
        start = dim
        for k in range(1, self.bandwidth + 1):
            length = max(dim - k, 0)
            rows.append(jnp.pad(entries[start : start + length], (0, dim - length)))
            start += length
        return BandedPrecision(jnp.stack(rows))

    def entries(self, cov: Any, diagonal: Positive, /) -> Array:
        """The inverse; past the end nothing is read."""
        first, *others = cov.lower
        below = [row[: max(cov.dim - k, 0)] for k, row in enumerate(others, 1)]
        return jnp.concatenate([diagonal.inverse(first), *below])

    def log_jacobian(self, entries: Array, dim: int, diagonal: Positive, /) -> Array:
        """Sum of log slopes of the diagonal."""
        return jnp.sum(diagonal.log_slope(entries[:dim]))

    def isotropic(self, dim: int, scale: float) -> Covariance:
        """L = I / scale."""
        return BandedPrecision(jnp.zeros((self.bandwidth + 1, dim)).at[0].set(1 / scale))


@dataclasses.dataclass(frozen=True)
class _TriangleForm(Form):
    """A lower triangle row by row, by `lower_from_vector`."""

    structure: ClassVar[Callable[[Array], Covariance]]

    def size(self, dim: int) -> int:
        """d(d+1)/2."""
        return factors.vector_size(dim)

    def covariance(self, entries: Array, dim: int, diagonal: Positive, /) -> Covariance:
        """Of the triangle."""
        return self.structure(factors.lower_from_vector(entries, diagonal=diagonal))

    def entries(self, cov: Any, diagonal: Positive, /) -> Array:
        """The inverse; entries above the diagonal are not read."""
        return factors.vector_from_lower(cov.lower, diagonal=diagonal)

    def log_jacobian(self, entries: Array, dim: int, diagonal: Positive, /) -> Array:
        """Sum of log slopes of the triangle's diagonal."""
        return jnp.sum(diagonal.log_slope(factors.diagonal_of_vector(entries)))


@dataclasses.dataclass(frozen=True)
class FullForm(_TriangleForm):
    """`Cholesky`: the lower factor of Σ, row by row."""

    structure: ClassVar[Callable[[Array], Covariance]] = Cholesky

    def isotropic(self, dim: int, scale: float) -> Covariance:
        """L = scale I."""
        return Cholesky(scale * jnp.eye(dim))


@dataclasses.dataclass(frozen=True)
class PrecisionForm(_TriangleForm):
    """`PrecisionCholesky`: the lower factor of Σ⁻¹, row by row."""

    structure: ClassVar[Callable[[Array], Covariance]] = PrecisionCholesky

    def isotropic(self, dim: int, scale: float) -> Covariance:
        """L = I / scale."""
        return PrecisionCholesky(jnp.eye(dim) / scale)
