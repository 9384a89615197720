"""Vectors to whole Gaussians and back: the mean, then a covariance of some form.

>>> gaussian_from_vector([5.0, 0.0], 1).mean
Array([5.], dtype=float32)
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.covariances import (
    BandedPrecision,
    Cholesky,
    Covariance,
    Diagonal,
    Isotropic,
    LowRank,
    PrecisionCholesky,
)
from gaussjax.gaussian import Gaussian
from gaussjax.parametrize.forms import (
    BandedForm,
    DiagonalForm,
    Form,
    FullForm,
    IsotropicForm,
    LowRankForm,
    PrecisionForm,
)
from gaussjax.parametrize.positive import Exp, Positive

FORMS: dict[type, Callable[[Any], Form]] = {
    Isotropic: lambda cov: IsotropicForm(),
    Diagonal: lambda cov: DiagonalForm(),
    LowRank: lambda cov: LowRankForm(cov.factor.shape[-1]),
    Cholesky: lambda cov: FullForm(),
    PrecisionCholesky: lambda cov: PrecisionForm(),
    BandedPrecision: lambda cov: BandedForm(cov.lower.shape[-2] - 1),
}


def gaussian_size(dim: int, form: Form = FullForm()) -> int:
    """Length of the vector that `gaussian_from_vector` takes: d and the entries of the form.

    Raises:
        TypeError, ValueError: `dim` is not an integer, or negative; `form` is no form.

    >>> gaussian_size(3), gaussian_size(3, DiagonalForm())
    (9, 6)
    """
    dim = _errors.dimension("dim", dim)
    return dim + _errors.form("form", form, Form).size(dim)


def gaussian_from_vector(
    vector: ArrayLike, dim: int, *, form: Form = FullForm(), diagonal: Positive = Exp()
) -> Gaussian:
    """Gaussian from an unconstrained vector `(..., gaussian_size(dim, form))`. O(size)

    The vector, such as the output of a network, holds the mean, then the entries of the covariance;
    the default form is a full covariance.

    Raises:
        ValueError: the vector's length is not `gaussian_size(dim, form)`.

    >>> gaussian_from_vector([5.0, 6.0, 0.0, 0.0], 2, form=DiagonalForm()).cov
    Diagonal(scale=Array([1., 1.], dtype=float32))
    """
    vector = _sized(vector, dim, form)
    return _from_vector(vector, dim=int(dim), form=form, diagonal=diagonal)


def gaussian_log_jacobian(
    vector: ArrayLike, dim: int, *, form: Form = FullForm(), diagonal: Positive = Exp()
) -> Float[Array, "..."]:
    """log|∂g/∂v| of `gaussian_from_vector`, over the mean and the free numbers of Σ's factor. O(d)

    For a density of those numbers. `covariance_log_jacobian` continues from a triangle to Σ.

    Raises:
        ValueError: the vector's length is not `gaussian_size(dim, form)`.

    >>> gaussian_log_jacobian([5.0, 6.0, 1.0, 2.0], 2, form=DiagonalForm())
    Array(3., dtype=float32)
    """
    vector = _sized(vector, dim, form)
    return _log_jacobian(vector, dim=int(dim), form=form, diagonal=diagonal)


@lift
def vector_from_gaussian(g: Gaussian, *, diagonal: Positive = Exp()) -> Float[Array, "... n"]:
    """Inverse of `gaussian_from_vector` with the form `form_of(g)`. O(size)

    NaN where `diagonal` does not reach a value, such as one below its floor.

    Raises:
        TypeError: no form has the structure of `g`.

    >>> from gaussjax import from_scale
    >>> vector_from_gaussian(from_scale([5.0, 6.0], [1.0, 1.0]))
    Array([5., 6., 0., 0.], dtype=float32)
    """
    return jnp.concatenate([g.mean, form_of(g).entries(g.cov, diagonal)])


def form_of(g: Gaussian) -> Form:
    """The form that makes Gaussians of the structure of `g`. O(1)

    Raises:
        TypeError: there is none.

    >>> from gaussjax import from_low_rank
    >>> form_of(from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
    LowRankForm(rank=1)
    """
    cov: Covariance = _errors.instance("g", g, Gaussian).cov
    if type(cov) not in FORMS:
        raise _errors.no_form("g", cov, FORMS)
    return FORMS[type(cov)](cov)


@lift
def _from_vector(
    vector: Float[Array, "... n"], *, dim: int, form: Form, diagonal: Positive
) -> Gaussian:
    return Gaussian(vector[:dim], form.covariance(vector[dim:], dim, diagonal))


@lift
def _log_jacobian(
    vector: Float[Array, "... n"], *, dim: int, form: Form, diagonal: Positive
) -> Float[Array, "..."]:
    return form.log_jacobian(vector[dim:], dim, diagonal)


def _sized(vector: ArrayLike, dim: int, form: Form) -> Array:
    array = _errors.real_array("vector", vector)
    _errors.rank_at_least("vector", array, 1)
    size = gaussian_size(dim, form)
    if array.shape[-1] != size:
        raise ValueError(
            f"vector must have {size} entries along its last axis for dim {dim}, "
            f"got shape {array.shape}."
        )
    return array
