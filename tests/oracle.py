"""60-digit references for what float64 cannot judge."""

import mpmath
import numpy as np

mpmath.mp.dps = 60


def matrix(array) -> mpmath.matrix:
    """The exact values of a float array."""
    return mpmath.matrix(np.asarray(array, dtype=np.float64).tolist())


def covariance(kind: str, factor) -> mpmath.matrix:
    """Σ from what a structure stores."""
    array = np.asarray(factor, np.float64)
    if kind in ("isotropic", "diagonal"):
        return mpmath.diag([mpmath.mpf(float(s)) ** 2 for s in array])
    lower = matrix(np.tril(array))
    product = lower * lower.T
    return product if kind == "cholesky" else product**-1


def kl(mean_p, sigma_p: mpmath.matrix, mean_q, sigma_q: mpmath.matrix) -> mpmath.mpf:
    """KL(p‖q) by the textbook formula, whose cancellation 60 digits can afford."""
    inverse = sigma_q**-1
    ratio = inverse * sigma_p
    difference = matrix(np.reshape(mean_p, (-1, 1))) - matrix(np.reshape(mean_q, (-1, 1)))
    trace = sum(ratio[i, i] for i in range(ratio.rows))
    quadratic = (difference.T * inverse * difference)[0]
    return (trace + quadratic - ratio.rows - mpmath.log(mpmath.det(ratio))) / 2


def relative_error(value, exact: mpmath.mpf) -> float:
    """|value − exact| / |exact|."""
    return float(abs(mpmath.mpf(float(value)) - exact) / abs(exact))
