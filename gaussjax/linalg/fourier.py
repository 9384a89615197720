"""The discrete Hartley transform: the Fourier transform of real vectors, in real numbers.

    (H v)ₖ = Σⱼ vⱼ (cos(2πjk/n) + sin(2πjk/n))

H is symmetric, and H H = n I. It diagonalises every symmetric circulant matrix: with the
eigenvalues λ, `fft` of the first column c, that is H diag(λ) H / n, and λ = H c.

>>> x = jnp.array([1.0, 2.0, 4.0])
>>> (hartley(hartley(x)) / 3).round(4)
Array([1., 2., 4.], dtype=float32)
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels.devices import over_batches, split_over_devices


# XLA has no rule to split a batch of transforms over devices. Posed as the solution of (H / n) x =
# v, the transform gets its derivatives in both modes from the symmetry of H.
def hartley(vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """H v. O(n log n)"""
    n = vector.shape[0]
    if n == 0:
        return vector
    return lax.custom_linear_solve(
        lambda x: _transform(x) / n, vector, solve=lambda _, v: _transform(v), symmetric=True
    )


def filtered(response: Float[Array, " n"], vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """H diag(r) H v / n: the circulant matrix with eigenvalues r, times v. O(n log n)"""
    return hartley(response * hartley(vector)) / vector.shape[0]


def spectrum_of(column: Float[Array, " n"]) -> Float[Array, " n"]:
    """Eigenvalues of the symmetric circulant matrix with this first column. O(n log n)"""
    return hartley(column)


def column_of(spectrum: Float[Array, " n"]) -> Float[Array, " n"]:
    """The first column of the symmetric circulant matrix with these eigenvalues. O(n log n)"""
    return hartley(spectrum) / spectrum.shape[0]


def correlation(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    """Σ_p x_p y_{p+k}, the positions modulo n, for every k. O(n log n)"""
    a, b = hartley(x), hartley(y)
    even, odd = 0.5 * (b + _negated(b)), 0.5 * (b - _negated(b))
    return hartley(_negated(a) * even + a * odd) / x.shape[0]


def _negated(x: Array) -> Array:
    """Entry −k at k, modulo n."""
    return jnp.roll(x[::-1], 1)


def _stacked(vectors: Float[Array, "... n"]) -> Float[Array, "... n"]:
    n = vectors.shape[-1]
    half = jnp.fft.rfft(vectors)
    rest = half[..., 1 : (n + 1) // 2][..., ::-1]  # its conjugates are the entries past n // 2
    return jnp.concatenate([half.real - half.imag, rest.real + rest.imag], axis=-1)


_transform = over_batches(split_over_devices(_stacked, "... n -> ... n", whole="n"))
