"""The conformance suite for covariance structures, your own included.

>>> import jax.numpy as jnp
>>> from gaussjax import Diagonal
>>> check_covariance(lambda: Diagonal(jnp.array([1.0, 2.0])), jnp.diag(jnp.array([1.0, 4.0])))
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax import constructors, divergences
from gaussjax import gaussian as gs
from gaussjax.covariances import Cholesky, Covariance, Diagonal, Isotropic, PrecisionCholesky
from gaussjax.gaussian import Gaussian


def check_covariance(make: Callable[[], Covariance], dense: Float[Array, "d d"]) -> None:
    """Asserts that the structure `make()` is the covariance `dense`, in every function.

    `make()` is one structure without batch axes; `dense` is Σ by other means, `(d, d)`. Moments,
    densities, samples and every divergence to and from the shipped structures are compared with
    dense linear algebra in float64 NumPy, eager and jitted, batched and looped, and derivatives
    with those of the dense form. Tolerances follow from the dtype and the condition of Σ.

    Raises:
        AssertionError: something disagrees; the message names the function.
    """
    cov = make()
    sigma = np.asarray(dense, dtype=np.float64)
    tolerance = _tolerance(cov, sigma)
    for check in (_moments, _densities, _samples, _pairs, _batches, _derivatives):
        check(cov, sigma, tolerance)


def _tolerance(cov: Covariance, sigma: np.ndarray) -> float:
    """50·d·u·κ with κ the condition of the correlation matrix's factor."""
    scale = np.sqrt(np.diag(sigma))
    condition = np.sqrt(np.linalg.cond(sigma / np.outer(scale, scale)))
    unit = jnp.finfo(jnp.result_type(*jax.tree.leaves(cov))).eps / 2
    return float(50 * cov.dim * unit * condition)


def _gaussian(cov: Covariance) -> tuple[Gaussian, np.ndarray, np.ndarray]:
    """A Gaussian with this covariance, its mean, and a point a few deviations away."""
    dtype = jnp.result_type(*jax.tree.leaves(cov))
    rng = np.random.default_rng(0)
    mean, x = rng.normal(size=(2, cov.dim)).astype(dtype)
    return Gaussian(jnp.asarray(mean), cov), mean.astype(float), x.astype(float)


def _moments(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, _ = _gaussian(cov)
    _close("dim", gs.dim(g), len(sigma), 0)
    _close("mean", gs.mean(g), mean, tolerance)
    _close("covariance", gs.covariance(g), sigma, tolerance)
    _close("variance", gs.variance(g), np.diag(sigma), tolerance)
    inverse = np.linalg.inv(sigma)
    _close("precision", gs.precision(g), inverse, tolerance * _condition(sigma))
    for matrix in (gs.covariance(g), gs.precision(g)):
        np.testing.assert_array_equal(matrix, np.swapaxes(matrix, -1, -2), "symmetric to the bit")


def _densities(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, x = _gaussian(cov)
    dtype = g.mean.dtype
    logdet = np.linalg.slogdet(sigma)[1]
    constant = len(sigma) * np.log(2 * np.pi)
    solved = np.linalg.solve(sigma, x - mean)
    distance = (x - mean) @ solved
    point = jnp.asarray(x, dtype)
    _close("mahalanobis", gs.mahalanobis(g, point), distance, tolerance)
    expected = -0.5 * (distance + logdet + constant)
    size = distance + abs(logdet) + constant
    _close("log_prob", gs.log_prob(g, point), expected, tolerance, size)
    _close("entropy", gs.entropy(g), 0.5 * (logdet + constant + len(sigma)), tolerance, size)
    _close("score", gs.score(g, point), -solved, tolerance * _condition(sigma))
    _close("whiten", jnp.sum(jnp.square(gs.whiten(g, point))), distance, tolerance)
    _close("color inverts whiten", gs.color(g, gs.whiten(g, point)), x, tolerance)
    for name, function in (("log_prob", gs.log_prob), ("score", gs.score)):
        _close(f"jitted {name}", jax.jit(function)(g, point), function(g, point), tolerance, size)


def _samples(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, _ = _gaussian(cov)
    identity = jnp.eye(len(sigma), dtype=g.mean.dtype)
    for name, color in (("color", gs.color), ("color_symmetric", gs.color_symmetric)):
        factor = np.asarray(color(g, identity), float) - mean  # row i is the i-th column of a root
        _close(f"{name} of the identity", factor.T @ factor, sigma, tolerance)
    key = jax.random.key(0)
    x, value = gs.sample_and_log_prob(key, g, (3,))
    _close("sample", gs.sample(key, g, (3,)), x, 0)
    size = np.max(np.abs(value)) + len(sigma)
    _close("log_prob of a sample", gs.log_prob(g, x), value, tolerance * _condition(sigma), size)


def _pairs(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, x = _gaussian(cov)
    _close("kl_divergence to itself", divergences.kl_divergence(g, g), 0.0, tolerance, 1.0)
    for partner, dense in _partners(g.mean.dtype, len(sigma)):
        other = Gaussian(jnp.asarray(x, g.mean.dtype), partner)
        for p, q, a, b in ((g, other, sigma, dense), (other, g, dense, sigma)):
            name = f"kl_divergence({type(p.cov).__name__}, {type(q.cov).__name__})"
            expected, size = _dense_kl(a, b, x - mean)
            _close(name, divergences.kl_divergence(p, q), expected, tolerance, size)
            _close(
                f"jitted {name}",
                jax.jit(divergences.kl_divergence)(p, q),
                expected,
                tolerance,
                size,
            )
            cross = expected + 0.5 * np.linalg.slogdet(2 * np.pi * np.e * a)[1]
            size += abs(cross) + abs(expected)
            _close(
                f"cross entropy for {name}", divergences.cross_entropy(p, q), cross, tolerance, size
            )


def _batches(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    """A batch of two equal Gaussians at two points gives what each gives alone."""
    g, _, x = _gaussian(cov)
    points = jnp.asarray(np.stack([x, 2 * x]), g.mean.dtype)
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), g)
    for name in ("log_prob", "score", "whiten", "color"):
        function = getattr(gs, name)
        looped = jnp.stack([function(g, point) for point in points])
        size = np.max(np.abs(looped), initial=0.0)
        for batch in (
            function(g, points),
            function(pair, points),
            jax.vmap(function)(pair, points),
        ):
            _close(f"batched {name}", batch, looped, tolerance, size)
    kl = divergences.kl_divergence(pair, constructors.standard(cov.dim, g.mean.dtype))
    if kl.shape != (2,):
        raise AssertionError(f"batched kl_divergence: expected shape (2,), got {kl.shape}")


def _derivatives(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, _, x = _gaussian(cov)
    point = jnp.asarray(x, g.mean.dtype)
    _close(
        "gradient of log_prob",
        jax.grad(gs.log_prob, 1)(g, point),
        gs.score(g, point),
        tolerance * _condition(sigma),
    )
    hessian = jax.hessian(gs.log_prob, 1)(g, point)
    _close("Hessian of log_prob", hessian, -np.linalg.inv(sigma), tolerance * _condition(sigma))
    for leaf in jax.tree.leaves(
        jax.grad(lambda g: divergences.kl_divergence(g, constructors.standard(cov.dim)))(g)
    ):
        if not np.all(np.isfinite(leaf)):
            raise AssertionError("gradient of kl_divergence: not finite")


def _partners(dtype: np.dtype, d: int) -> list[tuple[Covariance, np.ndarray]]:
    """One covariance of each shipped structure, and the matrix that it stands for."""
    rng = np.random.default_rng(1)
    lower = np.tril(0.3 * rng.normal(size=(d, d)), -1) + np.diag(rng.uniform(0.8, 1.5, d))
    lower = lower.astype(dtype).astype(float)
    scale = np.diag(lower)
    array = jnp.asarray(lower, dtype)
    return [
        (Isotropic(jnp.asarray(1.5, dtype), d), 2.25 * np.eye(d)),
        (Diagonal(jnp.diagonal(array)), np.diag(scale**2)),
        (Cholesky(array), lower @ lower.T),
        (PrecisionCholesky(array), np.linalg.inv(lower @ lower.T)),
    ]


def _dense_kl(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> tuple[float, float]:
    """KL by the textbook formula, and the size of its terms."""
    trace = np.trace(np.linalg.solve(b, a))
    quadratic = difference @ np.linalg.solve(b, difference)
    logdets = np.linalg.slogdet(b)[1], np.linalg.slogdet(a)[1]
    value = 0.5 * (trace + quadratic + logdets[0] - logdets[1] - len(a))
    return value, trace + quadratic + len(a) + sum(map(abs, logdets))


def _condition(sigma: np.ndarray) -> float:
    return float(np.sqrt(np.linalg.cond(sigma)))


def _close(name, got, expected, tolerance: float, size: float | None = None) -> None:
    """|got − expected| ≤ tolerance · size, where size defaults to the largest entry expected."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    if got.shape != expected.shape:
        raise AssertionError(f"{name}: expected shape {expected.shape}, got {got.shape}")
    allowed = tolerance * (np.max(np.abs(expected), initial=0.0) if size is None else size)
    error = np.max(np.abs(got - expected), initial=0.0)
    if not error <= allowed:
        raise AssertionError(f"{name}: error {error:.2g} exceeds {allowed:.2g}")
