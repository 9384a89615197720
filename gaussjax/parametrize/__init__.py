"""Unconstrained vectors to factors and Gaussians, and back: for networks, optimizers and HMC.

The free entries of a factor are read row by row. A map, `Exp`, `Softplus` or `Bounded`, makes
entries positive; floors and bounds keep a factor away from singular:

>>> lower_from_vector([0.0, 3.0, 0.0])
Array([[1., 0.],
       [3., 1.]], dtype=float32)

A form says which covariance a vector makes. `vector_from_gaussian` is the inverse:

>>> g = gaussian_from_vector([5.0, 7.0, 0.0, 0.0, 1.0, 2.0], 2, form=LowRankForm(1))
>>> g.cov
LowRank(scale=Array([1., 1.], dtype=float32), factor=Array([[1.],
       [2.]], dtype=float32))
>>> vector_from_gaussian(g)
Array([5., 7., 0., 0., 1., 2.], dtype=float32)

To turn the log density of a factor or a matrix into one of the vector, add the log-determinant of
the Jacobian of the map: `lower_log_jacobian` and the others, in closed form.
"""

from gaussjax.parametrize.factors import (
    correlation_from_vector,
    correlation_size,
    lower_from_vector,
    scaled_lower_from_vector,
    vector_from_correlation,
    vector_from_lower,
    vector_from_scaled_lower,
    vector_size,
)
from gaussjax.parametrize.forms import (
    BandedForm,
    DiagonalForm,
    Form,
    FullForm,
    IsotropicForm,
    LowRankForm,
    PrecisionForm,
)
from gaussjax.parametrize.gaussians import (
    form_of,
    gaussian_from_vector,
    gaussian_log_jacobian,
    gaussian_size,
    vector_from_gaussian,
)
from gaussjax.parametrize.jacobians import (
    correlation_log_jacobian,
    correlation_matrix_log_jacobian,
    covariance_log_jacobian,
    lower_log_jacobian,
    scaled_lower_log_jacobian,
)
from gaussjax.parametrize.positive import Bounded, Exp, Positive, Softplus

__all__ = [
    # Positive numbers
    "Bounded",
    "Exp",
    "Positive",
    "Softplus",
    # Factors
    "correlation_from_vector",
    "correlation_size",
    "lower_from_vector",
    "scaled_lower_from_vector",
    "vector_from_correlation",
    "vector_from_lower",
    "vector_from_scaled_lower",
    "vector_size",
    # Gaussians
    "BandedForm",
    "DiagonalForm",
    "Form",
    "FullForm",
    "IsotropicForm",
    "LowRankForm",
    "PrecisionForm",
    "form_of",
    "gaussian_from_vector",
    "gaussian_size",
    "vector_from_gaussian",
    # Log-determinants of Jacobians
    "correlation_log_jacobian",
    "correlation_matrix_log_jacobian",
    "covariance_log_jacobian",
    "gaussian_log_jacobian",
    "lower_log_jacobian",
    "scaled_lower_log_jacobian",
]
