"""The same mathematics in each library, as its documentation says to write it.

A library is a function that imports its package, in its own process, and returns a function of
arrays for each operation that it has. Those in JAX are pure and not yet jitted. Gaussians are given
as means `(..., d)` and lower Cholesky factors `(..., d, d)`.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any

from benchmarks.operations import NUMBERS, operation_of

Function = Callable[..., Any]
Operations = dict[str, Function]


def gaussjax() -> Operations:
    import gaussjax as gj

    return _gaussjax(lambda mean, lower: gj.Gaussian(mean, gj.Cholesky(lower)))


def gaussjax_from_cholesky() -> Operations:
    """With the constructor that checks its values (under `jit`: NaN where they are invalid)."""
    import gaussjax as gj

    return _gaussjax(gj.from_cholesky)


def gaussjax_vmap() -> Operations:
    """Batches by `vmap` instead of leading axes, if every argument has one."""
    import jax

    whole = gaussjax()
    return {
        name: jax.vmap(whole[name])
        for name in ("log_prob", "kl", "entropy", "condition", "cholesky", "solve")
    }


def _gaussjax(make: Function) -> Operations:
    import gaussjax as gj

    def moments(g: Any) -> Any:
        return g.mean, g.cov.lower

    def log_prob(mean: Any, lower: Any, x: Any) -> Any:
        return gj.log_prob(make(mean, lower), x)

    def condition(mean: Any, lower: Any, given: Any) -> Any:
        indices = range(0, mean.shape[-1], 2)
        return moments(gj.condition(make(mean, lower), indices, given))

    def observe(mean: Any, lower: Any, design: Any, noise_scale: Any, given: Any) -> Any:
        noise = gj.Gaussian(0 * noise_scale, gj.Diagonal(noise_scale))
        return moments(gj.observe(make(mean, lower), design, noise, given).posterior)

    return {
        "log_prob": log_prob,
        "likelihood": log_prob,
        "kl": lambda m, a, n, b: gj.kl_divergence(make(m, a), make(n, b)),
        "entropy": lambda mean, lower: gj.entropy(make(mean, lower)),
        "sample": lambda mean, lower, key: gj.sample(key, make(mean, lower)),
        "color": lambda mean, lower, x: gj.color(make(mean, lower), x),
        "condition": condition,
        "observe": observe,
        "cholesky": gj.linalg.cholesky,
        "solve": lambda lower, x: gj.linalg.solve_lower(lower, x[..., None])[..., 0],
    }


def jax_by_hand() -> Operations:
    """Textbook formulas in `jax.numpy` and `jax.scipy`."""
    import jax
    import jax.numpy as jnp

    def solve(lower: Any, rhs: Any) -> Any:
        return jax.scipy.linalg.solve_triangular(lower, rhs, lower=True)

    def sample(mean: Any, lower: Any, key: Any) -> Any:
        return color(mean, lower, jax.random.normal(key, mean.shape, mean.dtype))

    def color(mean: Any, lower: Any, x: Any) -> Any:
        return mean + (lower @ x[..., None])[..., 0]

    return {**_by_hand(jnp, solve), "sample": sample, "color": color}


def _by_hand(xp: Any, solve: Function) -> Operations:
    """The formulas for `jax.numpy` or `torch`."""

    def solve_vector(lower: Any, x: Any) -> Any:
        return solve(lower, x[..., None])[..., 0]

    def logdet(lower: Any) -> Any:
        return xp.sum(xp.log(xp.diagonal(lower, 0, -2, -1)), -1)

    def log_prob(mean: Any, lower: Any, x: Any) -> Any:
        quad = xp.sum(solve_vector(lower, x - mean) ** 2, -1)
        return -0.5 * (quad + x.shape[-1] * math.log(2 * math.pi)) - logdet(lower)

    def likelihood(mean: Any, lower: Any, x: Any) -> Any:
        quad = xp.sum(solve(lower, (x - mean).mT) ** 2, -2)
        return -0.5 * (quad + x.shape[-1] * math.log(2 * math.pi)) - logdet(lower)

    def kl(mean_p: Any, lower_p: Any, mean_q: Any, lower_q: Any) -> Any:
        trace = xp.sum(solve(lower_q, lower_p) ** 2, (-2, -1))
        quad = xp.sum(solve_vector(lower_q, mean_p - mean_q) ** 2, -1)
        return 0.5 * (trace + quad - mean_p.shape[-1]) + logdet(lower_q) - logdet(lower_p)

    def entropy(mean: Any, lower: Any) -> Any:
        return 0.5 * mean.shape[-1] * math.log(2 * math.pi * math.e) + logdet(lower)

    def posterior(mean: Any, cov: Any, cross: Any, root: Any, surprise: Any) -> Any:
        """Moments of x given y, with cross = cov(y, x) and root that of cov(y)."""
        half = solve(root, cross)
        mean = mean + (half.mT @ solve(root, surprise[..., None]))[..., 0]
        return mean, xp.linalg.cholesky(cov - half.mT @ half)

    def condition(mean: Any, lower: Any, given: Any) -> Any:
        cov = lower @ lower.mT
        kept = slice(1, None, 2)
        root = xp.linalg.cholesky(cov[..., ::2, ::2])
        surprise = given - mean[..., ::2]
        return posterior(mean[..., kept], cov[..., kept, kept], cov[..., ::2, kept], root, surprise)

    def observe(mean: Any, lower: Any, design: Any, noise_scale: Any, given: Any) -> Any:
        cov = lower @ lower.mT
        cross = design @ cov
        root = xp.linalg.cholesky(cross @ design.mT + xp.diag(noise_scale**2))
        return posterior(mean, cov, cross, root, given - (design @ mean[..., None])[..., 0])

    return {
        "log_prob": log_prob,
        "likelihood": likelihood,
        "kl": kl,
        "entropy": entropy,
        "condition": condition,
        "observe": observe,
        "cholesky": xp.linalg.cholesky,
        "solve": solve_vector,
    }


def distrax() -> Operations:
    import distrax

    make = distrax.MultivariateNormalTri
    return {
        **_of_distribution(make, lambda g, key: g.sample(seed=key)),
        "kl": lambda m, a, n, b: make(m, a).kl_divergence(make(n, b)),
    }


def tfp() -> Operations:
    tfd = importlib.import_module("tensorflow_probability.substrates.jax.distributions")

    def make(mean: Any, lower: Any) -> Any:
        return tfd.MultivariateNormalTriL(mean, lower, validate_args=False)

    return {
        **_of_distribution(make, lambda g, key: g.sample(seed=key)),
        "kl": lambda m, a, n, b: tfd.kl_divergence(make(m, a), make(n, b)),
    }


def numpyro() -> Operations:
    import numpyro.distributions as dist

    def make(mean: Any, lower: Any) -> Any:
        return dist.MultivariateNormal(mean, scale_tril=lower)

    return {
        **_of_distribution(make, lambda g, key: g.sample(key)),
        "kl": lambda m, a, n, b: dist.kl_divergence(make(m, a), make(n, b)),
    }


def torch() -> Operations:
    """`torch.distributions`, and what it lacks written by hand."""
    torch = importlib.import_module("torch")
    dist = torch.distributions

    def make(mean: Any, lower: Any) -> Any:
        return dist.MultivariateNormal(mean, scale_tril=lower, validate_args=False)

    def solve(lower: Any, rhs: Any) -> Any:
        return torch.linalg.solve_triangular(lower, rhs, upper=False)

    return {
        **_by_hand(torch, solve),
        **_of_distribution(make, lambda g, _: g.rsample()),
        "kl": lambda m, a, n, b: dist.kl_divergence(make(m, a), make(n, b)),
    }


def _of_distribution(make: Function, sample: Function) -> Operations:
    def log_prob(mean: Any, lower: Any, x: Any) -> Any:
        return make(mean, lower).log_prob(x)

    return {
        "log_prob": log_prob,
        "likelihood": log_prob,
        "entropy": lambda mean, lower: make(mean, lower).entropy(),
        "sample": lambda mean, lower, key: sample(make(mean, lower), key),
    }


def normals_alone() -> Operations:
    """A lower bound for any sampler: drawing the noise."""
    import jax

    return {"sample": lambda mean, lower, key: jax.random.normal(key, mean.shape, mean.dtype)}


def jax_gradient(measure: str, function: Function, arrays: int) -> Function:
    """Gradient of the sum of all numbers, or of half the sum of all squares."""
    import jax

    square = operation_of(measure) not in NUMBERS

    def total(*arguments: Any) -> Any:
        leaves = jax.tree.leaves(function(*arguments))
        return sum((0.5 * x**2 if square else x).sum() for x in leaves)

    return jax.grad(total, argnums=tuple(range(arrays)))


def torch_gradient(measure: str, function: Function, arrays: int) -> Function:
    """As `jax_gradient`."""
    torch = importlib.import_module("torch")
    square = operation_of(measure) not in NUMBERS

    def gradient(*arguments: Any) -> Any:
        leaves = [x.detach().requires_grad_() for x in arguments[:arrays]]
        result = function(*leaves, *arguments[arrays:])
        parts = result if isinstance(result, tuple) else (result,)
        total = sum((0.5 * x**2 if square else x).sum() for x in parts)
        return torch.autograd.grad(total, leaves, allow_unused=True)

    return gradient


VMAP = "gaussjax, vmap"
COPY = "copy"  # what `benchmarks.worker` makes of a measure's arguments and results
LIBRARIES: dict[str, Callable[[], Operations]] = {
    "gaussjax": gaussjax,
    VMAP: gaussjax_vmap,
    "gaussjax, from_cholesky": gaussjax_from_cholesky,
    "jax by hand": jax_by_hand,
    "distrax": distrax,
    "tfp": tfp,
    "numpyro": numpyro,
    "torch": torch,
    "normals alone": normals_alone,
    COPY: jax_by_hand,
}
PACKAGES = {
    "distrax": "distrax",
    "tfp": "tensorflow_probability",
    "numpyro": "numpyro",
    "torch": "torch",
}
PEERS = tuple(PACKAGES)  # a library each; what is written by hand is nobody's
