"""How long whole programs take to compile, beside the same programs in plain JAX.

Each runs in its own process, without a persistent cache: CPU seconds of all threads to trace and
compile, and the time of one compiled step.

    python -m benchmarks.programs
    python -m benchmarks.programs --programs "Kalman gradient"
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro

from benchmarks import harness

Program = tuple[Callable[..., Any], tuple[Any, ...]]  # what is jitted, and its arguments

SIDES = ("gaussjax", "plain JAX")
CALLS = 5


def main(rounds: int = 3, programs: tuple[str, ...] = (), child: str = "") -> None:
    """Measures and writes `benchmarks/results/programs.md` and `.json`.

    Args:
        rounds: Processes for each program and side; medians are written.
        programs: Which; all if left out.
        child: What to measure in this process, PROGRAM/SIDE (the parent starts itself with this).
    """
    if child:
        print(json.dumps(measured(*child.split("/"))))
        return
    if unknown := sorted(set(programs) - set(PROGRAMS)):
        sys.exit(f"unknown: {', '.join(unknown)}; known are {', '.join(PROGRAMS)}")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in programs or PROGRAMS:
        found[name] = {}
        for side in SIDES:
            runs = [ask(f"{name}/{side}") for _ in range(rounds)]
            found[name][side] = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        print(name, found[name], file=sys.stderr)
    header = ["", "compile, CPU s", "plain JAX", "ratio", "step, ms", "plain JAX"]
    rows = []
    for name, sides in found.items():
        ours, plain = (sides[side] for side in SIDES)
        seconds = ours["compile"], plain["compile"]
        rows.append([
            name, *(f"{s:.2f}" for s in seconds), f"**{seconds[0] / seconds[1]:.1f}**",
            *(f"{1e3 * s['step']:.3g}" for s in (ours, plain)),
        ])  # fmt: skip
    text = f"Medians of {rounds} fresh processes\n\n{harness.table(header, rows)}"
    harness.write("programs", text, {"rounds": rounds, "seconds": found})


def ask(child: str) -> dict[str, float]:
    """What a process of its own measures."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-m", "benchmarks.programs", "--child", child]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=harness.ROOT, env=env, timeout=300
    )
    return json.loads(run.stdout)


def measured(name: str, side: str) -> dict[str, float]:
    """CPU seconds to compile, and wall-clock seconds of a step."""
    import jax

    function, arguments = PROGRAMS[name](side == SIDES[0])
    # What JAX itself starts with: its first call of LAPACK imports scipy.
    jax.block_until_ready(jax.jit(jax.numpy.linalg.cholesky)(jax.numpy.eye(2)))
    start = time.process_time()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds, steps = time.process_time() - start, []
    for _ in range(CALLS):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        steps.append(time.perf_counter() - begin)
    return {"compile": seconds, "step": min(steps)}


# The programs. Those in plain JAX follow textbooks, by Cholesky factors ----------------------


def sgpr_evidence(ours: bool) -> Program:
    """Titsias' bound of the evidence of a sparse Gaussian process, with its gradient."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    import gaussjax as gj

    rng = np.random.default_rng(0)
    x, z = np.sort(rng.uniform(0, 10, 500)), np.linspace(0, 10, 20)
    y = np.sin(x) + 0.1 * rng.normal(size=500)

    def bound(p: Any, x: Any, z: Any, y: Any) -> Any:
        def kernel(a: Any, b: Any) -> Any:
            return jnp.exp(2 * p["s"] - 0.5 * ((a[:, None] - b) / jnp.exp(p["l"])) ** 2)

        noise, small = jnp.exp(2 * p["n"]), 1e-4 * jnp.eye(len(z))
        prior, cross = kernel(z, z) + small, kernel(z, x)
        if ours:
            lower = gj.linalg.cholesky(prior)
            w = gj.linalg.solve_lower(lower, cross).T
            value = gj.log_prob(gj.from_low_rank(0.0, jnp.full(len(x), noise), w), y)
        else:
            lower = jnp.linalg.cholesky(prior)
            w = solve_triangular(lower, cross, lower=True).T
            inner = jnp.linalg.cholesky(jnp.eye(len(z)) + w.T @ w / noise)
            c = solve_triangular(inner, w.T @ y, lower=True) / noise
            logdet = 2 * jnp.sum(jnp.log(jnp.diagonal(inner))) + len(x) * jnp.log(noise)
            distance = y @ y / noise - c @ c
            value = -0.5 * (distance + logdet + len(x) * jnp.log(2 * jnp.pi))
        left = len(x) * jnp.exp(2 * p["s"]) - jnp.sum(w**2)
        return value - 0.5 * left / noise

    p = {name: jnp.zeros(()) for name in "lsn"}
    return jax.value_and_grad(bound), (p, *(np.float32(a) for a in (x, z, y)))


def fisher_product(ours: bool) -> Program:
    """The Fisher matrix of a policy's Gaussian head times a vector, as in TRPO."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    import gaussjax as gj

    d, hidden, batch = 6, 32, 64
    key = jax.random.key(0)
    p = {
        "in": 0.1 * jax.random.normal(key, (10, hidden)),
        "mean": 0.1 * jax.random.normal(key, (hidden, d)),
        "root": 0.1 * jax.random.normal(key, (hidden, d * (d + 1) // 2)),
    }

    def law(p: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["in"])
        entries = h @ p["root"]
        if ours:
            return gj.Gaussian(
                h @ p["mean"], gj.Cholesky(gj.parametrize.lower_from_vector(entries))
            )
        lower = jnp.zeros((len(x), d, d)).at[:, *np.tril_indices(d)].set(entries)
        here = jnp.eye(d, dtype=bool)
        return h @ p["mean"], jnp.where(here, jax.nn.softplus(lower), lower)

    def divergence(a: Any, b: Any) -> Any:
        if ours:
            return jnp.mean(gj.kl_divergence(a, b))
        (mean, lower), (other, root) = a, b
        solve = jax.vmap(lambda r, v: solve_triangular(r, v, lower=True))
        ratio, shift = solve(root, lower), solve(root, (other - mean)[..., None])
        logs = [jnp.sum(jnp.log(jnp.diagonal(x, axis1=1, axis2=2)), -1) for x in (root, lower)]
        squares = jnp.sum(ratio**2, (1, 2)) + jnp.sum(shift**2, (1, 2))
        return jnp.mean(0.5 * (squares - d) + logs[0] - logs[1])

    def product(p: Any, v: Any, x: Any) -> Any:
        old = jax.lax.stop_gradient(law(p, x))
        return jax.jvp(jax.grad(lambda q: divergence(old, law(q, x))), (p,), (v,))[1]

    return product, (p, p, jax.random.normal(key, (batch, 10)))


def kalman_gradient(ours: bool) -> Program:
    """Gradient of a Kalman filter's evidence in its transition and its noises."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import cho_solve

    import gaussjax as gj

    d, m = 4, 2
    look = np.eye(m, d, dtype=np.float32)
    p = {"move": 0.9 * jnp.eye(d), "q": jnp.full(d, 0.3), "r": jnp.full(m, 0.5)}
    ys = np.random.default_rng(0).normal(size=(100, m)).astype(np.float32)

    def ours_evidence(p: Any, ys: Any) -> Any:
        process, noise = gj.from_scale(0.0, p["q"]), gj.from_scale(0.0, p["r"])

        def step(law: Any, y: Any) -> Any:
            posterior, value = gj.observe(law, look, noise, y)
            return gj.as_cholesky(gj.convolve(gj.affine(posterior, p["move"]), process)), value

        return jnp.sum(jax.lax.scan(step, gj.as_cholesky(gj.standard(d)), ys)[1])

    def plain_evidence(p: Any, ys: Any) -> Any:
        def step(law: Any, y: Any) -> Any:
            mean, cov = law
            rest = y - look @ mean
            lower = jnp.linalg.cholesky(look @ cov @ look.T + jnp.diag(p["r"] ** 2))
            gain = cho_solve((lower, True), look @ cov).T
            logdet = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
            value = -0.5 * (
                rest @ cho_solve((lower, True), rest) + logdet + m * jnp.log(2 * jnp.pi)
            )
            mean, cov = mean + gain @ rest, cov - gain @ look @ cov
            return (p["move"] @ mean, p["move"] @ cov @ p["move"].T + jnp.diag(p["q"] ** 2)), value

        return jnp.sum(jax.lax.scan(step, (jnp.zeros(d), jnp.eye(d)), ys)[1])

    return jax.value_and_grad(ours_evidence if ours else plain_evidence), (p, ys)


def vae_step(ours: bool) -> Program:
    """A step of Adam on a VAE with a full-covariance posterior in 8 dimensions."""
    import jax
    import jax.numpy as jnp
    import optax

    import gaussjax as gj

    d, pixels, hidden = 8, 64, 128
    key = jax.random.key(0)
    outputs = d + d * (d + 1) // 2
    shapes = [(pixels, hidden), (hidden, outputs), (d, hidden), (hidden, pixels)]
    p = [0.1 * jax.random.normal(key, shape) for shape in shapes]
    adam = optax.adam(1e-3)

    def loss(p: Any, x: Any, key: Any) -> Any:
        out = jax.nn.relu(x @ p[0]) @ p[1]
        mean, entries = out[:, :d], out[:, d:]
        if ours:
            q = gj.Gaussian(mean, gj.Cholesky(gj.parametrize.lower_from_vector(entries)))
            z, divergence = gj.sample(key, q), gj.kl_divergence(q, gj.standard(d))
        else:
            lower = jnp.zeros((len(x), d, d)).at[:, *np.tril_indices(d)].set(entries)
            lower = jnp.where(jnp.eye(d, dtype=bool), jax.nn.softplus(lower), lower)
            noise = jax.random.normal(key, mean.shape)
            z = mean + jnp.einsum("bij,bj->bi", lower, noise)
            logdet = 2 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)), -1)
            divergence = 0.5 * (jnp.sum(lower**2, (1, 2)) + jnp.sum(mean**2, -1) - d - logdet)
        logits = jax.nn.relu(z @ p[2]) @ p[3]
        rate = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, x), -1)
        return jnp.mean(rate + divergence)

    def step(p: Any, state: Any, x: Any, key: Any) -> Any:
        value, slopes = jax.value_and_grad(loss)(p, x, key)
        updates, state = adam.update(slopes, state)
        return optax.apply_updates(p, updates), state, value

    x = (jax.random.uniform(key, (128, pixels)) < 0.5).astype(jnp.float32)
    return step, (p, adam.init(p), x, key)


def em_with_gaps(ours: bool) -> Program:
    """A step of EM for the mean and covariance of rows with missing entries."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import cho_solve

    import gaussjax as gj

    d, n = 6, 200
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(n, d)).astype(np.float32), rng.uniform(size=(n, d)) > 0.3

    def ours_step(mean: Any, cov: Any, x: Any, mask: Any) -> Any:
        law = gj.condition_where(gj.from_covariance(mean, cov), x, mask=mask)
        mean = jnp.mean(law.mean, 0)
        rest = law.mean - mean
        return mean, jnp.mean(gj.covariance(law), 0) + rest.T @ rest / n

    def plain_step(mean: Any, cov: Any, x: Any, mask: Any) -> Any:
        def of_row(x: Any, mask: Any) -> Any:
            both = mask[:, None] & mask
            seen = jnp.where(both, cov, jnp.eye(d))
            cross = jnp.where(mask, cov, 0.0)  # columns of what is seen
            lower = jnp.linalg.cholesky(seen)
            gain = cho_solve((lower, True), cross.T).T
            filled = jnp.where(mask, x, mean + gain @ jnp.where(mask, x - mean, 0.0))
            hidden = (~mask)[:, None] & ~mask
            return filled, jnp.where(hidden, cov - gain @ cross.T, 0.0)

        filled, covs = jax.vmap(of_row)(x, mask)
        mean = jnp.mean(filled, 0)
        return mean, jnp.mean(covs, 0) + (filled - mean).T @ (filled - mean) / n

    return ours_step if ours else plain_step, (jnp.zeros(d), jnp.eye(d), x, mask)


def full_vi(ours: bool) -> Program:
    """Gradient of the evidence bound of a logistic regression, with a full covariance."""
    import jax
    import jax.numpy as jnp

    import gaussjax as gj

    d = 12

    def bound(p: Any, x: Any, y: Any, key: Any) -> Any:
        if ours:
            q = gj.Gaussian(p["mean"], gj.Cholesky(gj.parametrize.lower_from_vector(p["root"])))
            w, divergence = gj.sample(key, q, (8,)), gj.kl_divergence(q, gj.standard(d))
        else:
            lower = jnp.zeros((d, d)).at[np.tril_indices(d)].set(p["root"])
            lower = jnp.where(jnp.eye(d, dtype=bool), jax.nn.softplus(lower), lower)
            w = p["mean"] + jax.random.normal(key, (8, d)) @ lower.T
            logdet = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
            divergence = 0.5 * (jnp.sum(lower**2) + jnp.sum(p["mean"] ** 2) - d - logdet)
        return divergence - jnp.sum(jnp.mean(jax.nn.log_sigmoid(y * (w @ x.T)), 0))

    p = {"mean": jnp.zeros(d), "root": jnp.zeros(d * (d + 1) // 2)}
    return jax.value_and_grad(bound), (p, *_labelled(d))


def low_rank_vi(ours: bool) -> Program:
    """The same with a low-rank covariance in 50 dimensions."""
    import jax
    import jax.numpy as jnp

    import gaussjax as gj

    d, r = 50, 5

    def bound(p: Any, x: Any, y: Any, key: Any) -> Any:
        scale = jax.nn.softplus(p["scale"])
        if ours:
            q = gj.from_low_rank(p["mean"], scale**2, p["factor"])
            w, divergence = gj.sample(key, q, (8,)), gj.kl_divergence(q, gj.standard(d))
        else:
            noise = jax.random.normal(key, (8, d + r))
            w = p["mean"] + noise[:, :d] * scale + noise[:, d:] @ p["factor"].T
            inner = jnp.eye(r) + p["factor"].T @ (p["factor"] / scale[:, None] ** 2)
            lower = jnp.linalg.cholesky(inner)
            logdet = 2 * (jnp.sum(jnp.log(scale)) + jnp.sum(jnp.log(jnp.diagonal(lower))))
            squares = jnp.sum(scale**2) + jnp.sum(p["factor"] ** 2) + jnp.sum(p["mean"] ** 2)
            divergence = 0.5 * (squares - d - logdet)
        return divergence - jnp.sum(jnp.mean(jax.nn.log_sigmoid(y * (w @ x.T)), 0))

    p = {"mean": jnp.zeros(d), "scale": jnp.zeros(d), "factor": 0.1 * jnp.ones((d, r))}
    return jax.value_and_grad(bound), (p, *_labelled(d))


def _labelled(d: int) -> tuple[Any, Any, Any]:
    """A hundred points, their labels, and a key."""
    import jax

    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, d)).astype(np.float32)
    return x, np.sign(x[:, 0] + 0.1), jax.random.key(0)


PROGRAMS: dict[str, Callable[[bool], Program]] = {
    "SGPR evidence and gradient": sgpr_evidence,
    "Fisher-vector product": fisher_product,
    "Kalman gradient": kalman_gradient,
    "VAE step": vae_step,
    "EM with missing data": em_with_gaps,
    "VI, full covariance": full_vi,
    "VI, low rank": low_rank_vi,
}


if __name__ == "__main__":
    tyro.cli(main)
