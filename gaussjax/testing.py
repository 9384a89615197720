"""The conformance suite for covariance structures, your own included.

>>> import jax.numpy as jnp
>>> from gaussjax import Diagonal
>>> check_covariance(lambda: Diagonal(jnp.array([1.0, 2.0])), jnp.diag(jnp.array([1.0, 4.0])))
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax import algebra, constructors, divergences, missing, transforms
from gaussjax import gaussian as gs
from gaussjax.covariances import (
    BandedPrecision,
    Cholesky,
    Covariance,
    Diagonal,
    LowRank,
    PrecisionCholesky,
)
from gaussjax.gaussian import Gaussian


def check_covariance(make: Callable[[], Covariance], dense: Float[Array, "d d"]) -> None:
    """Asserts that the structure `make()` is the covariance `dense`, in every function.

    `make()` returns one structure without batch axes; `dense` is its Σ, `(d, d)`, computed
    independently. Moments, densities, samples and every divergence to and from gaussjax's
    structures are compared with dense linear algebra in float64 NumPy, eager and jitted, batched
    and looped, and derivatives with those of the dense form. Tolerances follow from the dtype and
    the condition number of Σ.

    Raises:
        AssertionError: something disagrees; the message names the function.
    """
    cov = make()
    sigma = np.asarray(dense, dtype=np.float64)
    tolerance = _tolerance(cov, sigma)
    for check in (_moments, _densities, _samples, _pairs, _parts, _batches, _derivatives):
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
    of = jax.jit(lambda g: (gs.mean(g), gs.covariance(g), gs.variance(g), gs.precision(g)))
    got_mean, covariance, variance, precision = of(g)
    _close("dim", gs.dim(g), len(sigma), 0)
    _close("mean", got_mean, mean, tolerance)
    _close("covariance", covariance, sigma, tolerance)
    _close("variance", variance, np.diag(sigma), tolerance)
    _close("precision", precision, np.linalg.inv(sigma), tolerance * _condition(sigma))
    for matrix in (covariance, precision):
        np.testing.assert_array_equal(matrix, np.swapaxes(matrix, -1, -2), "exactly symmetric")


def _densities(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, x = _gaussian(cov)
    logdet = np.linalg.slogdet(sigma)[1]
    constant = len(sigma) * np.log(2 * np.pi)
    solved = np.linalg.solve(sigma, x - mean)
    distance = (x - mean) @ solved
    log_prob = -0.5 * (distance + logdet + constant)
    size = distance + abs(logdet) + constant
    point = jnp.asarray(x, g.mean.dtype)
    got = jax.jit(_densities_of)(g, point)
    _close("eager log_prob", gs.log_prob(g, point), log_prob, tolerance, size)
    _close("mahalanobis", got["mahalanobis"], distance, tolerance)
    _close("log_prob", got["log_prob"], log_prob, tolerance, size)
    _close("entropy", got["entropy"], 0.5 * (logdet + constant + len(sigma)), tolerance, size)
    _close("score", got["score"], -solved, tolerance * _condition(sigma))
    _close("gradient of log_prob", got["gradient"], -solved, tolerance * _condition(sigma))
    _close("whiten", np.sum(np.square(got["whiten"])), distance, tolerance)
    _close("color inverts whiten", got["back"], x, tolerance * _condition(sigma))


def _densities_of(g: Gaussian, x: Array) -> dict[str, Array]:
    whitened = gs.whiten(g, x)
    return {
        "mahalanobis": gs.mahalanobis(g, x),
        "log_prob": gs.log_prob(g, x),
        "entropy": gs.entropy(g),
        "score": gs.score(g, x),
        "gradient": jax.grad(gs.log_prob, 1)(g, x),
        "whiten": whitened,
        "back": gs.color(g, whitened),
    }


def _samples(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, _ = _gaussian(cov)
    identity = jnp.eye(len(sigma), dtype=g.mean.dtype)
    wide = jnp.eye(g.cov.noise_dim, dtype=g.mean.dtype)
    key = jax.random.key(0)

    def of(g: Gaussian) -> tuple[Any, ...]:
        x, value = gs.sample_and_log_prob(key, g, (3,))
        roots = gs.color(g, identity), gs.color_symmetric(g, identity)
        return roots, jax.vmap(g.cov.draw)(wide), gs.sample(key, g, (3,)), value, gs.log_prob(g, x)

    roots, draws, samples, value, again = jax.jit(of)(g)
    for name, root in zip(("color", "color_symmetric"), roots, strict=True):
        factor = np.asarray(root, float) - mean  # row i is the i-th column of a root
        _close(f"{name} of the identity", factor.T @ factor, sigma, tolerance)
    draws = np.asarray(draws, float)
    _close("draw of the identity", draws.T @ draws, sigma, tolerance)
    if samples.shape != (3, len(sigma)):
        raise AssertionError(f"sample: expected shape {(3, len(sigma))}, got {samples.shape}")
    size = np.max(np.abs(value)) + len(sigma)
    _close("log_prob of a sample", again, value, tolerance * _condition(sigma), size)


def _pairs(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, mean, x = _gaussian(cov)
    _close("kl_divergence to itself", divergences.kl_divergence(g, g), 0.0, tolerance, 1.0)
    for partner, dense in _partners(g.mean.dtype, len(sigma)):
        other = Gaussian(jnp.asarray(x, g.mean.dtype), partner)
        both = jax.jit(lambda p, q: (_of_a_pair(p, q), _of_a_pair(q, p)))(g, other)
        pairs = (g, other, sigma, dense), (other, g, dense, sigma)
        for (p, q, a, b), (kl, cross, trace, total) in zip(pairs, both, strict=True):
            names = f"({type(p.cov).__name__}, {type(q.cov).__name__})"
            expected, size = _dense_kl(a, b, x - mean)
            _close(f"kl_divergence{names}", kl, expected, tolerance, size)
            expected += 0.5 * np.linalg.slogdet(2 * np.pi * np.e * a)[1]
            _close(f"cross_entropy{names}", cross, expected, tolerance, size + abs(expected))
            expected = np.trace(np.linalg.solve(b, a))
            _close(f"trace_solve{names}", trace, expected, tolerance, size)
            _close(f"add{names}", total, a + b, tolerance)


def _of_a_pair(p: Gaussian, q: Gaussian) -> tuple[Array, ...]:
    return (
        divergences.kl_divergence(p, q),
        divergences.cross_entropy(p, q),
        algebra.trace_solve(p.cov, q.cov),
        gs.covariance(transforms.convolve(p, q)),
    )


def _parts(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    """Maps, a marginal and a conditional, where there are two coordinates or more."""
    g, mean, x = _gaussian(cov)
    tolerance *= _condition(sigma)
    factor = np.linspace(0.5, 2.0, len(sigma)).astype(g.mean.dtype)
    scaled = transforms.scale_by(g, jnp.asarray(factor))
    _close("scale_by", gs.covariance(scaled), sigma * np.outer(factor, factor), tolerance)
    if len(sigma) == 1:
        return
    rest, given = np.arange(1, len(sigma)), np.array([0])
    gain = sigma[rest][:, given] / sigma[0, 0]
    expected = mean[rest] + gain @ (x - mean)[given]
    covariance = sigma[np.ix_(rest, rest)] - gain @ sigma[np.ix_(given, rest)]
    point = jnp.asarray(np.where(np.arange(len(sigma)) == 0, x, np.nan), g.mean.dtype)

    def of(g: Gaussian, point: Array) -> tuple[Array, ...]:
        law = transforms.condition(g, given, point[given])
        masked = missing.condition_where(g, point, mask=~jnp.isnan(point))
        marginal = gs.covariance(transforms.marginal(g, rest))
        return gs.mean(law), gs.covariance(law), gs.mean(masked), marginal

    mean_given, covariance_given, masked, marginal = jax.jit(of)(g, point)
    size = np.max(np.abs(x)) + 1
    _close("condition", mean_given, expected, tolerance, size)
    _close("condition's covariance", covariance_given, covariance, tolerance, np.max(sigma))
    _close("condition_where", masked[rest], expected, tolerance, size)
    _close("marginal", marginal, sigma[np.ix_(rest, rest)], tolerance)


def _batches(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    """A batch of two equal Gaussians at two points gives what each gives alone."""
    g, _, x = _gaussian(cov)
    points = jnp.asarray(np.stack([x, 2 * x]), g.mean.dtype)

    def of(g: Gaussian, points: Array) -> dict[str, list[Array]]:
        pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), g)
        return {
            name: [f(g, points[0]), f(g, points), f(pair, points), jax.vmap(f)(pair, points)]
            for name, f in (("log_prob", gs.log_prob), ("whiten", gs.whiten), ("color", gs.color))
        }

    for name, (alone, *batches) in jax.jit(of)(g, points).items():
        size = float(np.max(np.abs(batches[-1]), initial=0.0))
        for batch in batches:
            _close(f"batched {name}", batch[0], alone, tolerance, size)
            _close(f"batched {name}", batch[1], batches[-1][1], tolerance, size)


def _derivatives(cov: Covariance, sigma: np.ndarray, tolerance: float) -> None:
    g, _, x = _gaussian(cov)
    point = jnp.asarray(x, g.mean.dtype)
    hessian = jax.jit(jax.hessian(gs.log_prob, 1))(g, point)
    _close("Hessian of log_prob", hessian, -np.linalg.inv(sigma), tolerance * _condition(sigma))
    standard = constructors.standard(cov.dim, g.mean.dtype)
    for function in (divergences.kl_divergence, lambda p, q: divergences.kl_divergence(q, p)):
        for leaf in jax.tree.leaves(jax.jit(jax.grad(function))(g, standard)):
            if not np.all(np.isfinite(leaf)):
                raise AssertionError("gradient of kl_divergence: not finite")


def _partners(dtype: np.dtype, d: int) -> list[tuple[Covariance, np.ndarray]]:
    """One covariance of each shipped structure, and the matrix that it stands for."""
    rng = np.random.default_rng(1)
    lower = np.tril(0.3 * rng.normal(size=(d, d)), -1) + np.diag(rng.uniform(0.8, 1.5, d))
    lower = lower.astype(dtype).astype(float)
    scale = np.diag(lower)
    array = jnp.asarray(lower, dtype)
    band = array[:2].at[0].set(jnp.diagonal(array)) if d > 1 else array
    banded = np.diag(np.asarray(band[0], float))
    banded += sum(np.diag(np.asarray(row[: d - 1], float), -1) for row in band[1:])
    return [
        (Diagonal(jnp.diagonal(array)), np.diag(scale**2)),
        (Cholesky(array), lower @ lower.T),
        (PrecisionCholesky(array), np.linalg.inv(lower @ lower.T)),
        (
            LowRank(jnp.diagonal(array), array[:, :1]),
            np.diag(scale**2) + lower[:, :1] @ lower[:, :1].T,
        ),
        (BandedPrecision(band), np.linalg.inv(banded @ banded.T)),
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
