"""Functions of a covariance alone: of a structure, or of a Gaussian's.

The members of a structure are written for one covariance; these take batches.
"""

from jaxtyping import Array, Float

from gaussjax._lift import lift, lift_unchecked
from gaussjax.covariances import Covariance, pairs
from gaussjax.gaussian import Gaussian


@lift_unchecked
def logdet(g: Gaussian | Covariance) -> Float[Array, "..."]:
    """log|Σ|, in nats. O(d) for factors that are diagonal or triangular, at most O(d³)

    Of a triangle it reads the diagonal alone: what is below is not checked.

    >>> from gaussjax import from_scale
    >>> print(f"{logdet(from_scale([0.0, 0.0], [1.0, 2.0])):.4f}")
    1.3863
    """
    return _covariance(g).logdet()


@lift
def solve(g: Gaussian | Covariance, v: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Σ⁻¹v. O(d²) from a triangular factor

    `v` is a vector `(..., d)` whose leading axes are batch, as in `log_prob`. For the columns of a
    matrix V `(d, k)` write `solve(g, V.T).T`.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> solve(from_scale([0.0, 0.0], [1.0, 2.0]), [1.0, 4.0])
    Array([1., 1.], dtype=float32)
    """
    return _covariance(g).solve(v)


@lift
def matvec(g: Gaussian | Covariance, v: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Σ v. O(d²) from a triangular factor

    `v` is a vector `(..., d)` whose leading axes are batch, as in `log_prob`. For the columns of a
    matrix V `(d, k)` write `matvec(g, V.T).T`.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> matvec(from_scale([0.0, 0.0], [1.0, 2.0]), [1.0, 1.0])
    Array([1., 4.], dtype=float32)
    """
    return _covariance(g).times(v)


@lift
def add(a: Covariance, b: Covariance) -> Covariance:
    """A + B in a common structure, if there is one. O(d) to O(d³)

    Diagonals, low rank with either, circulant, Toeplitz, and equal blocks keep their structure.
    With a dense operand the sum is a `Cholesky`, by QR. Any other pair is a `Sum`, which samples
    and multiplies in the structures of both, and becomes dense only where a factor is needed.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gaussjax import Diagonal, Isotropic
    >>> add(Diagonal(jnp.array([3.0, 0.0])), Isotropic(jnp.array(4.0), 2))
    Diagonal(scale=Array([5., 4.], dtype=float32))
    """
    return pairs.add(a, b)


@lift
def trace_solve(a: Covariance, b: Covariance) -> Float[Array, "..."]:
    """tr(B⁻¹A). O(d) to O(d³), and no d × d array unless A or B is dense

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gaussjax import Diagonal, Isotropic
    >>> trace_solve(Isotropic(jnp.array(1.0), 2), Diagonal(jnp.array([1.0, 2.0])))
    Array(1.25, dtype=float32)
    """
    return pairs.trace_solve(a, b)


def _covariance(g: Gaussian | Covariance) -> Covariance:
    return g.cov if isinstance(g, Gaussian) else g
