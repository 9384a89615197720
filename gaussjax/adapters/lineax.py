"""lineax: a covariance as a positive semidefinite linear operator, with its log-determinant.

>>> import gaussjax as gj
>>> operator = to_lineax(gj.LowRank(jnp.ones(3), jnp.ones((3, 1))))
>>> operator.mv(jnp.array([1.0, 0.0, 0.0])), operator.logdet().round(4)
(Array([2., 1., 1.], dtype=float32), Array(1.3863, dtype=float32))
>>> lineax.linear_solve(operator, jnp.array([4.0, 4.0, 4.0]), StructuredSolver()).value.round(4)
Array([1., 1., 1.], dtype=float32)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax import algebra
from gaussjax import gaussian as gs
from gaussjax._errors import batch_shape
from gaussjax._lift import structure_argument
from gaussjax._sharding import LATE
from gaussjax.adapters._extras import missing
from gaussjax.constructors import from_semidefinite
from gaussjax.covariances import Covariance, Diagonal
from gaussjax.gaussian import Gaussian

try:
    import lineax
except ImportError as _error:
    raise missing("lineax", _error) from _error


class CovarianceOperator(lineax.AbstractLinearOperator):
    """Σ v, in the structure of Σ: symmetric and positive semidefinite to lineax."""

    cov: Covariance

    def mv(self, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        """Σ v, as `gaussjax.matvec`."""
        with LATE(True):  # lineax traces a solve, and this in it, when the solve is lowered
            return algebra.matvec(self.cov, vector)

    def as_matrix(self) -> Float[Array, "d d"]:
        """Σ as a matrix. O(d³)"""
        return gs.covariance(_centred(self.cov))

    def transpose(self) -> "CovarianceOperator":
        """Itself."""
        return self

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """`(d,)` and the dtype."""
        return jax.ShapeDtypeStruct((self.cov.dim,), _dtype(self.cov))

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """`(d,)` and the dtype."""
        return self.in_structure()

    def logdet(self) -> Float[Array, ""]:
        """log|Σ|, as `gaussjax.logdet`."""
        return algebra.logdet(self.cov)


def to_lineax(g: Gaussian | Covariance) -> CovarianceOperator:
    """Σ of a Gaussian, or a covariance, as an operator of lineax. O(1)

    Raises:
        TypeError: `g` is neither.
        ValueError: it is a batch: an operator is one, and `vmap` maps over them.

    >>> import gaussjax as gj
    >>> lineax.is_positive_semidefinite(to_lineax(gj.standard(2)))
    True
    """
    whole = structure_argument("g", g, Gaussian, Covariance)
    cov = whole.cov if isinstance(whole, Gaussian) else whole
    shape = batch_shape("g", whole)
    if shape:
        raise ValueError(f"g must be one Gaussian or covariance, got batch shape {shape}.")
    return CovarianceOperator(cov)


def from_lineax(operator: lineax.AbstractLinearOperator) -> Covariance:
    """A positive semidefinite operator of lineax as a covariance. O(d³), or O(d) of a diagonal one

    Raises:
        TypeError: it is not an operator that lineax knows to be positive semidefinite.

    >>> from_lineax(lineax.DiagonalLinearOperator(jnp.array([1.0, 4.0])))
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    if isinstance(operator, CovarianceOperator):
        return operator.cov
    if not isinstance(operator, lineax.AbstractLinearOperator):
        raise TypeError(f"operator must be one of lineax, got {type(operator).__name__}.")
    if lineax.is_diagonal(operator):
        return Diagonal(jnp.sqrt(lineax.diagonal(operator)))
    if not lineax.is_positive_semidefinite(operator):
        raise TypeError(
            "operator must be positive semidefinite, as the tag "
            "lineax.positive_semidefinite_tag says; this one is not."
        )
    matrix = operator.as_matrix()
    return from_semidefinite(jnp.zeros(matrix.shape[-1:], matrix.dtype), matrix).cov


class StructuredSolver(lineax.AbstractLinearSolver):
    """Σ⁻¹ v in the structure of Σ, as `gaussjax.solve`, for `lineax.linear_solve`.

    Raises:
        TypeError: the operator is not from `to_lineax`.
    """

    def init(self, operator: Any, options: dict[str, Any]) -> Covariance:
        """The covariance."""
        if not isinstance(operator, CovarianceOperator):
            raise TypeError(
                f"operator must be a CovarianceOperator, got {type(operator).__name__}: to_lineax "
                "makes one."
            )
        return operator.cov

    def compute(
        self, state: Covariance, vector: Float[Array, " d"], options: dict[str, Any]
    ) -> tuple[Array, Any, dict[str, Any]]:
        """The solution; NaN, and no error, where Σ is singular."""
        with LATE(True):  # as in `CovarianceOperator.mv`
            return algebra.solve(state, vector), lineax.RESULTS.successful, {}

    def transpose(
        self, state: Covariance, options: dict[str, Any]
    ) -> tuple[Covariance, dict[str, Any]]:
        """Itself."""
        return state, options

    def conj(self, state: Covariance, options: dict[str, Any]) -> tuple[Covariance, dict[str, Any]]:
        """Itself."""
        return state, options

    def assume_full_rank(self) -> bool:
        """It does."""
        return True


# What lineax asks of an operator ------------------------------------------------------------------


def _is_diagonal(operator: CovarianceOperator) -> bool:
    root = operator.cov.covariance_root()
    return root is not None and root.ndim == 1


def _matrix(operator: CovarianceOperator) -> lineax.MatrixLinearOperator:
    return lineax.MatrixLinearOperator(operator.as_matrix(), lineax.positive_semidefinite_tag)


def _tridiagonal(operator: CovarianceOperator) -> tuple[Array, Array, Array]:
    matrix = operator.as_matrix()
    beside = jnp.diagonal(matrix, 1)
    return jnp.diagonal(matrix), beside, beside


_ANSWERS: dict[Any, Any] = {
    lineax.is_symmetric: lambda operator: True,
    lineax.is_positive_semidefinite: lambda operator: True,
    lineax.is_negative_semidefinite: lambda operator: False,
    lineax.has_unit_diagonal: lambda operator: False,
    lineax.is_diagonal: _is_diagonal,
    lineax.is_tridiagonal: _is_diagonal,
    lineax.is_lower_triangular: _is_diagonal,
    lineax.is_upper_triangular: _is_diagonal,
    lineax.diagonal: lambda operator: gs.variance(_centred(operator.cov)),
    lineax.tridiagonal: _tridiagonal,
    lineax.materialise: _matrix,
    lineax.linearise: lambda operator: operator,
    lineax.conj: lambda operator: operator,
}
for _question, _answer in _ANSWERS.items():
    _question.register(CovarianceOperator)(_answer)


def _centred(cov: Covariance) -> Gaussian:
    return Gaussian(jnp.zeros(cov.dim, _dtype(cov)), cov)


def _dtype(cov: Covariance) -> Any:
    return jnp.result_type(*jax.tree.leaves(cov))
