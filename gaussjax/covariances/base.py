"""The protocol of a covariance structure: four members, from which everything else follows.

A structure stores a factor of Σ and is written for one Gaussian; leading axes are lifted by the
public functions. With the four required members it has sampling, densities, every divergence to
every other structure, and dense forms:

>>> from gaussjax._struct import leaf, structure
>>> @structure
... class Scaled(Covariance):  # Σ = diag(scale²)
...     scale: jax.Array = leaf(rank=1)
...
...     @property
...     def dim(self):
...         return self.scale.shape[-1]
...
...     def color(self, noise):
...         return self.scale * noise
...
...     def whiten(self, vector):
...         return vector / self.scale
...
...     def logdet(self):
...         return 2 * jnp.sum(jnp.log(self.scale))
>>> Scaled(jnp.array([1.0, 2.0])).dense()
Array([[1., 0.],
       [0., 4.]], dtype=float32)
"""

import abc
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gaussjax import _errors
from gaussjax._struct import batch_rank, exported, fields_of
from gaussjax.linalg import semidefinite
from gaussjax.linalg._kernels import small
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.ranges import lengths, unit_of
from gaussjax.linalg.roots import symmetric_root

Indices = np.ndarray | Array
"""Positions along the event axis: static as a NumPy array, traced as a JAX array."""

BLOCK = 64
"""Basis vectors taken at a time where a whole identity would be a d × d array."""


@exported
class Conditional(NamedTuple):
    """Law of a zero-mean Gaussian given some of it, and the log density of what was given."""

    mean: Float[Array, " n"]
    cov: "Covariance"
    log_evidence: Float[Array, ""]


def _of_one(member: Callable[..., Any]) -> Callable[..., Any]:
    """A member that refuses a batch, for which its result would be wrong."""

    @functools.wraps(member)
    def of_one(self: Any, *args: Any, **kwargs: Any) -> Any:
        if batch_rank(self):
            _errors.one_covariance(member.__name__, self)
        return member(self, *args, **kwargs)

    return of_one


class Covariance(abc.ABC):
    """Σ = C Cᵀ in some structure, positive definite or singular.

    Members are written for one covariance and refuse a batch; public functions take batches.
    """

    def __init_subclass__(cls) -> None:
        """Guards the members that a structure defines."""
        super().__init_subclass__()
        for name in MEMBERS & set(vars(cls)):
            setattr(cls, name, _of_one(vars(cls)[name]))

    # Required ------------------------------------------------------------------------------------

    dim: Any  # event size d, a static integer: a property, or a field declared with `static()`

    @abc.abstractmethod
    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C ε for a fixed root C; linear in `noise`."""

    @abc.abstractmethod
    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C⁻¹ v, the inverse of `color`."""

    @abc.abstractmethod
    def logdet(self) -> Float[Array, ""]:
        """log|Σ|."""

    # Validity -------------------------------------------------------------------------------------

    def pivots(self) -> Array | None:
        """Numbers that are negative or not finite if Σ is not a covariance, found in O(d)."""
        return None

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the pivots of this structure and of those in it are those of a covariance."""
        pivots = self.pivots()
        valid = [part.is_valid() for part in parts_of(self)]
        if pivots is not None:
            valid.append(small.all_of((pivots >= 0) & (pivots < jnp.inf)))
        return functools.reduce(jnp.logical_and, valid, jnp.ones((), bool))

    @property
    def has_root(self) -> bool:
        """Whether a root of Σ is at hand: entries would have to be factorised, which may fail."""
        return all(part.has_root for part in parts_of(self))

    # Optional: what a structure knows. None if it knows nothing better than the generic way -------

    def covariance_root(self) -> Array | None:
        """Root of Σ: `(d, d)` lower triangle L with Σ = L Lᵀ, or `(d,)` a diagonal.

        Divergences between two structures that have one are exact, however close they are.
        """
        return None

    def precision_root(self) -> Array | None:
        """The same of Σ⁻¹."""
        return None

    def rectangular_root(self) -> Float[Array, "d k"] | None:
        """F with F Fᵀ = Σ, of any number of columns, where that is simpler than C."""
        return None

    def thin_parts(self) -> tuple[Array, Array] | None:
        """`(s, W)` with Σ = diag(s²) + W Wᵀ, W `(d, r)` with few columns."""
        return None

    def precision_diagonals(self) -> Float[Array, "w d"] | None:
        """Row k holds (Σ⁻¹)ᵢ,ᵢ₊ₖ at i, zero past the end, where Σ⁻¹ is banded."""
        return None

    def toeplitz_column(self) -> Float[Array, " d"] | None:
        """First column of Σ where Σᵢⱼ depends on |i − j| alone."""
        return None

    def inverse_diagonal_sums(self) -> Float[Array, " d"] | None:
        """Σᵢ (Σ⁻¹)ᵢ,ᵢ₊ₖ at k, where that costs less than d solves."""
        return None

    def divergence_to(self, other: "Covariance", /) -> Float[Array, ""] | None:
        """D(Σ, Σ') = tr(Σ'⁻¹Σ) − d − log|Σ'⁻¹Σ| without cancellation."""
        return None

    def divergence_from(self, other: "Covariance", /) -> Float[Array, ""] | None:
        """D(Σ', Σ), the same of an `other` that does not know this structure."""
        return None

    def skewed_to(
        self,
        other: "Covariance",
        shift: Float[Array, " d"],
        alpha: Array,
        beta: Array,
        /,
        *,
        inside: bool,
    ) -> Float[Array, ""] | None:
        """`mixtures.skewed_divergence` of Σ and Σ', where that needs no mean of both."""
        return None

    def transport_to(self, other: "Covariance", /) -> Float[Array, ""] | None:
        """`transport.transport` of Σ and Σ', the squared Wasserstein distance, without roots."""
        return None

    def fisher_solve(self, cotangent: Any, /) -> "Covariance | None":
        """F⁻¹c for the Fisher information of the stored arrays and a cotangent of them."""
        return None

    def trace_to(self, other: "Covariance", /) -> Float[Array, ""] | None:
        """tr(Σ'⁻¹Σ), where that costs less than d solves; Σ may be singular."""
        return None

    def plus(self, other: "Covariance", /) -> "Covariance | None":
        """Σ + Σ' in a structure."""
        return None

    def rescaled(self, factor: Array, /) -> "Covariance | None":
        """diag(f) Σ diag(f) in the same structure, f `(d,)`, or `()` for all alike."""
        return None

    def mapped(self, matrix: Float[Array, "m d"], /) -> "Covariance | None":
        """A Σ Aᵀ in a structure."""
        return None

    def marginal(self, indices: Indices, /) -> "Covariance | None":
        """Σ restricted to these rows and columns, in a structure."""
        return None

    def conditional(
        self, kept: Indices, given: Indices, values: Float[Array, " m"], /
    ) -> Conditional | None:
        """Law of the coordinates `kept` of N(0, Σ) where those `given` have these values."""
        return None

    def conditional_where(
        self, mask: Bool[Array, " d"], values: Float[Array, " d"], /
    ) -> Conditional | None:
        """N(0, Σ) given the values at the mask; they are zero elsewhere."""
        return None

    def posterior(self, noise: "Covariance", value: Float[Array, " d"], /) -> Conditional | None:
        """Law of x ~ N(0, Σ) given that x + e has this value, e ~ N(0, Σ')."""
        return None

    # Derived: a structure overrides one to compute it at a lower cost, which it states ------------

    @property
    def num_parameters(self) -> int:
        """Free numbers of Σ: its own and those of its parts, at most those of any matrix.

        An upper bound where parts share some, as terms of a sum may.
        """
        own = [(x, rank) for path, x, rank in fields_of(self) if path.count(".") == 1]
        count = sum(math.prod(np.shape(x)[np.ndim(x) - rank :]) for x, rank in own)
        count += sum(part.num_parameters for part in parts_of(self))
        return min(count, self.dim * (self.dim + 1) // 2)

    @property
    def noise_dim(self) -> int:
        """Length of the noise that `draw` takes."""
        return self.dim

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """R ε for the cheapest root R, which may have more columns than C."""
        return self.color(noise)

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """vᵀΣ⁻¹v."""
        return jnp.sum(jnp.square(self.whiten(vector)))  # cannot be negative; vᵀ(Σ⁻¹v) can

    def inv_quad_and_logdet(self, vector: Float[Array, " d"], /) -> tuple[Array, Array]:
        """vᵀΣ⁻¹v and log|Σ|, as densities need them."""
        return self.inv_quad(vector), self.logdet()

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ⁻¹v = C⁻ᵀC⁻¹v."""
        whitened, transpose = jax.vjp(self.whiten, vector)
        return transpose(whitened)[0]

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Cᵀv."""
        return jax.vjp(self.color, jnp.zeros_like(vector))[1](vector)[0]

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σv = C Cᵀv."""
        return self.color(self.color_transpose(vector))

    def variance(self) -> Float[Array, " d"]:
        """Diagonal of Σ."""
        return over_basis(self, lambda e: jnp.sum(jnp.square(self.color_transpose(e))))

    def stddev(self) -> Float[Array, " d"]:
        """Square root of the variance; as lengths, where that may leave the range of the dtype."""
        parts = self.thin_parts()
        if parts is not None:
            return lengths(jnp.concatenate([parts[0][:, None], parts[1]], axis=1))
        if type(self).variance is Covariance.variance:  # derived too
            return over_basis(self, lambda e: lengths(self.color_transpose(e)[None])[0])
        return jnp.sqrt(self.variance())

    def precision_diagonal(self) -> Float[Array, " d"]:
        """Diagonal of Σ⁻¹."""
        return over_basis(self, self.inv_quad)

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """Row k holds Σᵢ,ᵢ₊ₖ at i, zero past the end, for k = 0 … `width`."""
        if width == 0:
            return self.variance()[None]

        def below(e: Array) -> Array:
            column = jnp.pad(self.times(e), (0, width))
            return jax.lax.dynamic_slice(column, (jnp.argmax(e),), (width + 1,))

        return over_basis(self, below).T

    def dense_factor(self) -> Float[Array, "d d"]:
        """C as a matrix."""
        return jax.vmap(self.color, 1, 1)(self._identity())

    def dense(self) -> Float[Array, "d d"]:
        """Σ as a matrix, exactly symmetric."""
        return gram(any_root(self))

    def rank(self) -> Int[Array, ""]:
        """Dimension of the support; `on_support` decides alike. O(d³)"""
        return semidefinite.rank(any_root(self))

    def on_support(self, vector: Float[Array, " d"], /) -> semidefinite.OnSupport:
        """Distance, log-determinant and rank within the support. O(d³)"""
        return semidefinite.on_support(any_root(self), vector)

    def dense_precision(self) -> Float[Array, "d d"]:
        """Σ⁻¹ as a matrix, exactly symmetric."""
        whitener = jax.vmap(self.whiten, 1, 1)(self._identity())
        return gram(whitener.T)

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ^{1/2} ε with the symmetric root."""
        unit = unit_of(jnp.max(self.stddev(), initial=0))  # else entries of Σ leave the range
        like = self.rescaled(1 / unit)
        matrix = gram(self.dense_factor() / unit) if like is None else like.dense()
        return unit * dot(symmetric_root(matrix), noise)

    def _identity(self) -> Array:
        return jnp.eye(self.dim, dtype=dtype_of(self))


MEMBERS = {name for name, member in vars(Covariance).items() if callable(member) and name[0] != "_"}
"""Functions of one covariance: what the protocol has but sizes."""

for _name in MEMBERS - Covariance.__abstractmethods__:
    setattr(Covariance, _name, _of_one(vars(Covariance)[_name]))


def dtype_of(cov: Any, /) -> jnp.dtype:
    """Common dtype of the leaves of a structure."""
    return jnp.result_type(*jax.tree.leaves(cov))


def parts_of(cov: Covariance, /) -> list[Covariance]:
    """The structures inside a structure."""
    fields = tuple(vars(cov).values())
    inside = jax.tree.leaves(fields, is_leaf=lambda x: isinstance(x, Covariance))
    return [x for x in inside if isinstance(x, Covariance)]


def any_root(cov: Covariance, /) -> Float[Array, "d k"]:
    """F with F Fᵀ = Σ: the one that a structure has, or C."""
    root = cov.rectangular_root()
    return cov.dense_factor() if root is None else root


def narrow_root(cov: Covariance, /) -> Float[Array, "d k"] | None:
    """F, k ≤ d, if a structure has one: it may be singular, and then no triangle can follow it."""
    root = cov.rectangular_root()
    return root if root is not None and root.shape[1] <= cov.dim else None


def log_density(cov: Covariance, vector: Array, /, count: Array | int | None = None) -> Array:
    """Log density of N(0, Σ) at `vector`; `count` of its coordinates are real, the rest padding."""
    distance, logdet = cov.inv_quad_and_logdet(vector)
    return log_normal(distance, logdet, cov.dim if count is None else count)


def log_normal(distance: Array, logdet: Array, size: Array | int, /) -> Array:
    """−½ (vᵀΣ⁻¹v + log|Σ| + n log 2π) from its three parts; −∞ off the support of a singular Σ."""
    value = -0.5 * (distance + logdet + size * math.log(2 * math.pi))
    none = jnp.where(jnp.isnan(logdet), jnp.nan, -jnp.inf)  # not −∞ if Σ is no covariance
    return jnp.where(distance == jnp.inf, none.astype(value.dtype), value)  # log|Σ| is −∞ too


def over_basis(cov: Covariance, function: Callable[[Array], Array], /) -> Array:
    """`function(eᵢ)` for every basis vector, without an array of d × d elements when d is large.

    Its derivatives compute the function again, since storing what it computed would take d × d.
    """
    positions = jnp.arange(cov.dim)

    @jax.checkpoint
    def at(i: Array) -> Array:
        return function((positions == i).astype(dtype_of(cov)))

    return (
        jax.vmap(at)(positions)
        if cov.dim <= BLOCK
        else jax.lax.map(at, positions, batch_size=BLOCK)
    )
