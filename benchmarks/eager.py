"""What a call outside `jit` costs, beside the same call under the caller's own `jit`.

python -m benchmarks.eager
"""

import time
from collections.abc import Callable
from typing import Any

import tyro

from benchmarks import harness

CALLS, ROUNDS, DIM = 300, 7, 3


def main() -> None:
    """Measures and writes `benchmarks/results/eager.md` and `.json`."""
    import jax

    rows, found = [], {}
    for batch in ((), (1000,)):
        for name, (function, arguments) in programs(batch).items():
            eager = microseconds(lambda f=function, a=arguments: f(*a))
            jitted = jax.jit(function)
            within = microseconds(lambda f=jitted, a=arguments: f(*a))
            found[f"{name} {batch}"] = {"eager": eager, "jitted": within}
            size = str(batch[0]) if batch else "one"
            rows.append([name, size, f"{eager:.0f}", f"{within:.0f}", f"**{eager / within:.1f}**"])
    header = ["", "Gaussians", "eager, µs", "jitted, µs", "ratio"]
    text = f"Best of {ROUNDS} rounds of {CALLS} calls, d = {DIM}\n\n{harness.table(header, rows)}"
    harness.write("eager", text, {"microseconds": found})


def programs(batch: tuple[int, ...]) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Functions and arguments, of a batch of Gaussians in three dimensions."""
    import jax
    import jax.numpy as jnp

    import gaussjax as gj

    eye = jnp.broadcast_to(jnp.eye(DIM), (*batch, DIM, DIM))
    x, v = jnp.ones((*batch, DIM)), jnp.ones((*batch, 1))
    g, key = gj.Gaussian(0 * x, gj.Cholesky(eye)), jax.random.key(0)
    return {
        "log_prob": (gj.log_prob, (g, x)),
        "kl_divergence": (gj.kl_divergence, (g, gj.Gaussian(x, gj.Cholesky(2 * eye)))),
        "sample": (lambda key, g: gj.sample(key, g), (key, g)),
        "condition": (lambda g, v: gj.condition(g, [0], v), (g, v)),
        "from_scale": (gj.from_scale, (x, x)),
        "from_covariance": (gj.from_covariance, (x, eye)),
    }


def microseconds(call: Callable[[], Any]) -> float:
    """The fastest round, a call."""
    import jax

    jax.block_until_ready(call())
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            out = call()
        jax.block_until_ready(out)
        times.append((time.perf_counter() - start) / CALLS)
    return 1e6 * min(times)


if __name__ == "__main__":
    tyro.cli(main)
