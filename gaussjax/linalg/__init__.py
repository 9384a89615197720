"""Linear algebra: arrays to arrays, leading axes are batch.

Every function takes `(..., d, d)` arrays, keeps full precision on every device, and has derivatives
of all orders in both modes. On a CPU, batches of matrices up to 256 rows run in native kernels, if
gaussjax was built with a C++ compiler: `kernels` lists them.
"""

from gaussjax.linalg import sharded
from gaussjax.linalg._kernels.native import kernels
from gaussjax.linalg.factor import SafeCholesky, cholesky, safe_cholesky
from gaussjax.linalg.products import lower_product
from gaussjax.linalg.roots import factor_of_sum, symmetric_sqrt
from gaussjax.linalg.triangular import logdet_lower, solve_lower, solve_lower_transpose
from gaussjax.linalg.updates import Downdate, append, delete, downdate, update

__all__ = [
    "Downdate",
    "SafeCholesky",
    "append",
    "cholesky",
    "delete",
    "downdate",
    "factor_of_sum",
    "kernels",
    "logdet_lower",
    "lower_product",
    "sharded",
    "safe_cholesky",
    "solve_lower",
    "solve_lower_transpose",
    "symmetric_sqrt",
    "update",
]
