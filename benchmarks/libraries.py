"""The same mathematics in each library, as its documentation says to write it.

A library is a function from the name of a measure to a function of arrays; it imports its package
when it is asked, in a process of its own. `jax` ones are pure and not yet jitted. Inputs are means
`(B, d)` and lower Cholesky factors `(B, d, d)`.
"""

import importlib
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]
MEASURES = ("kl", "kl_gradient", "log_prob", "sample")


def gaussjax(measure: str) -> Function:
    import gaussjax as gj

    return _gaussjax(measure, lambda mean, lower: gj.Gaussian(mean, gj.Cholesky(lower)))


def gaussjax_from_cholesky(measure: str) -> Function:
    """With the constructor that checks its values (under `jit`: NaN where they are invalid)."""
    import gaussjax as gj

    return _gaussjax(measure, gj.from_cholesky)


def _gaussjax(measure: str, make: Function) -> Function:
    import gaussjax as gj

    return _of_jax(
        measure,
        make,
        kl=gj.kl_divergence,
        log_prob=gj.log_prob,
        sample=lambda g, key: gj.sample(key, g),
    )


def distrax(measure: str) -> Function:
    import distrax

    return _of_jax(
        measure,
        distrax.MultivariateNormalTri,
        kl=lambda p, q: p.kl_divergence(q),
        log_prob=lambda g, x: g.log_prob(x),
        sample=lambda g, key: g.sample(seed=key),
    )


def tfp(measure: str) -> Function:
    tfd = importlib.import_module("tensorflow_probability.substrates.jax.distributions")

    return _of_jax(
        measure,
        lambda mean, lower: tfd.MultivariateNormalTriL(mean, lower, validate_args=False),
        kl=tfd.kl_divergence,
        log_prob=lambda g, x: g.log_prob(x),
        sample=lambda g, key: g.sample(seed=key),
    )


def numpyro(measure: str) -> Function:
    import numpyro.distributions as dist

    return _of_jax(
        measure,
        lambda mean, lower: dist.MultivariateNormal(mean, scale_tril=lower),
        kl=dist.kl_divergence,
        log_prob=lambda g, x: g.log_prob(x),
        sample=lambda g, key: g.sample(key),
    )


def torch(measure: str) -> Function:
    dist = importlib.import_module("torch.distributions")

    def make(mean: Any, lower: Any) -> Any:
        return dist.MultivariateNormal(mean, scale_tril=lower, validate_args=False)

    def kl(*arrays: Any) -> Any:
        mean_p, lower_p, mean_q, lower_q = arrays
        return dist.kl_divergence(make(mean_p, lower_p), make(mean_q, lower_q))

    def kl_gradient(*arrays: Any) -> Any:
        torch = importlib.import_module("torch")
        leaves = [x.detach().requires_grad_() for x in arrays]
        return torch.autograd.grad(kl(*leaves).sum(), leaves)

    return {
        "kl": kl,
        "kl_gradient": kl_gradient,
        "log_prob": lambda mean, lower, x: make(mean, lower).log_prob(x),
        "sample": lambda mean, lower, _: make(mean, lower).rsample(),
    }[measure]


def normals_alone(measure: str) -> Function:
    """What a sampler cannot undercut: drawing the noise."""
    import jax

    if measure != "sample":
        raise NotImplementedError
    return lambda mean, lower, key: jax.random.normal(key, mean.shape, mean.dtype)


def _of_jax(
    measure: str, make: Function, *, kl: Function, log_prob: Function, sample: Function
) -> Function:
    import jax

    def divergence(mean_p: Any, lower_p: Any, mean_q: Any, lower_q: Any) -> Any:
        return kl(make(mean_p, lower_p), make(mean_q, lower_q))

    return {
        "kl": divergence,
        "kl_gradient": jax.grad(lambda *arrays: divergence(*arrays).sum(), argnums=(0, 1, 2, 3)),
        "log_prob": lambda mean, lower, x: log_prob(make(mean, lower), x),
        "sample": lambda mean, lower, key: sample(make(mean, lower), key),
    }[measure]


LIBRARIES: dict[str, Callable[[str], Function]] = {
    "gaussjax": gaussjax,
    "gaussjax, from_cholesky": gaussjax_from_cholesky,
    "distrax": distrax,
    "tfp": tfp,
    "numpyro": numpyro,
    "torch": torch,
    "normals alone": normals_alone,
}
PACKAGES = {
    "gaussjax": "gaussjax",
    "gaussjax, from_cholesky": "gaussjax",
    "distrax": "distrax",
    "tfp": "tensorflow_probability",
    "numpyro": "numpyro",
    "torch": "torch",
    "normals alone": "jax",
}
PEERS = ("distrax", "tfp", "numpyro", "torch")
