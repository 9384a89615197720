"""Nothing hangs: every public function and its gradient, 200 times at B = 100,000.

Batched LAPACK calls of jaxlib up to 0.10.2 can wait for each other for ever on few cores. Here a
child process with the default threads calls the value and the gradient of each function and says
so; when it is silent for too long, it hangs, and that is said and counted. Structures that store
vectors are left out: they call no LAPACK.
"""

import inspect
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import gaussjax as gj
from benchmarks import harness
from benchmarks.harness import Hung, Lines

Function = Callable[..., Any]
Cases = dict[str, tuple[Function, tuple[jax.Array, ...]]]


def main(
    calls: int = 200,
    seconds: float = math.inf,
    batch: int = 100_000,
    dims: tuple[int, ...] = (2, 4, 8, 16),
    only: str = "",
    lapack: bool = False,
    limit: float = 180.0,
    child: bool = False,
) -> None:
    """Calls everything, and fails if anything hangs or raises.

    Args:
        calls: Calls of each value and of each gradient.
        seconds: When to stop calling one of them, with fewer calls; the report says so.
        batch: Gaussians in a call.
        dims: Dimensions.
        only: Part of the names to call; all if empty.
        lapack: Call only what calls LAPACK, of which alone hangs are known.
        limit: Seconds of silence after which a call counts as hung; compiling counts too.
        child: Do the work, in this process (the parent starts itself again with this).
    """
    if child:
        run(calls, seconds, batch, dims, only, lapack)
        return
    done: list[str] = []
    hung: list[str] = []
    for dim in dims:
        options = f"--calls {calls} --seconds {seconds} --batch {batch} --dims {dim} --only={only}"
        command = [*options.split(), "--lapack" if lapack else "--no-lapack", "--child"]
        watch(command, limit, done, hung)
    fewer = [line for line in done if f"| {calls} calls" not in line]
    text = (
        f"{len(done)} values and gradients, {calls} calls each at B = {batch:,}, d in {dims}: "
        f"**{len(hung)} hung or failed**. Fewer calls, for lack of time: {len(fewer)}.\n"
    )
    text += "".join(f"- {line}\n" for line in hung)
    harness.write("no_hang", text, {"hung": hung, "done": done})
    if hung:
        sys.exit(f"hung or failed: {'; '.join(hung)}")


def watch(command: list[str], limit: float, done: list[str], hung: list[str]) -> None:
    """Runs a child, passes its lines on, and sorts them into what is done and what hangs."""
    child = Lines([sys.executable, "-m", "benchmarks.no_hang", *command], quiet=False)
    current = "start"
    try:
        while line := child.read(limit).rstrip():
            print(line, flush=True)
            current = line.split(" | ")[0]
            if " ms" in line:
                done.append(line)
        if child.wait() != 0:
            hung.append(f"{current}: failed")
    except Hung as error:
        hung.append(f"{current}: {error}")
        print(hung[-1], flush=True)


def run(
    calls: int, seconds: float, batch: int, dims: tuple[int, ...], only: str, lapack: bool
) -> None:
    """The child: a line before each function, every few seconds, and after it."""
    for dim in dims:
        for name, (function, arguments) in cases(batch, dim).items():
            if only not in name:
                continue
            for what, call in (("value", function), ("gradient", gradient(function))):
                label = f"d = {dim}: {what} of {name}"
                print(label, flush=True)
                compiled = jax.jit(call).lower(*arguments).compile()
                solvers = (compiled.as_text() or "").count('custom_call_target="lapack')
                if solvers or not lapack:
                    count, mean = time_calls(label, partial(compiled, *arguments), calls, seconds)
                    print(f"{label} | {count} calls | {1e3 * mean:.2f} ms | {solvers} of LAPACK")


def time_calls(label: str, call: Function, calls: int, seconds: float) -> tuple[int, float]:
    """How many calls were made, and their mean time."""
    start = said = now = time.perf_counter()
    count = 0
    while count < calls and now - start < seconds:
        jax.block_until_ready(call())
        now, count = time.perf_counter(), count + 1
        if now - said > 10:
            print(f"{label} | {count} calls so far", flush=True)
            said = now
    return count, (now - start) / count


def gradient(function: Function) -> Function:
    """Derivative of the sum of all outputs in all arguments."""

    def total(*arrays: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(function(*arrays))
        return sum(
            (x.sum() for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)), jnp.zeros(())
        )

    return lambda *arrays: jax.grad(total, argnums=tuple(range(len(arrays))))(*arrays)


def cases(batch: int, dim: int) -> Cases:
    """Every public function that computes something, by name."""
    keys = iter(jax.random.split(jax.random.key(dim), 8))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), (batch, *shape))

    def factor() -> jax.Array:
        below = jnp.tril(normal(dim, dim), -1) * 0.5 / dim**0.5
        return below + jnp.eye(dim) * jnp.exp(0.3 * normal(1, dim))

    mean, other_mean, x = normal(dim), normal(dim), normal(dim)
    lower, other = factor(), factor()
    key = jax.random.key(0)
    roots: dict[str, Function] = {
        "Cholesky": gj.Cholesky,
        "PrecisionCholesky": gj.PrecisionCholesky,
    }
    out: Cases = {}

    for root, make in roots.items():

        def one(function: Function, make: Function = make) -> Function:
            return lambda m, a, *rest: function(gj.Gaussian(m, make(a)), *rest)

        for function in (gj.mean, gj.variance, gj.stddev, gj.covariance, gj.precision, gj.entropy):
            out[f"{function.__name__} {root}"] = one(function), (mean, lower)
        for function in (gj.log_prob, gj.score, gj.mahalanobis, gj.whiten, gj.color):
            out[f"{function.__name__} {root}"] = one(function), (mean, lower, x)
        out[f"color_symmetric {root}"] = one(gj.color_symmetric), (mean, lower, x)
        for function in (gj.sample, gj.sample_and_log_prob):
            out[f"{function.__name__} {root}"] = (
                one(lambda g, function=function: function(key, g)),
                (mean, lower),
            )
        for other_root, other_make in roots.items():

            def two(function: Function, make: Function = make, other: Function = other_make):
                return lambda m, a, n, b: function(
                    gj.Gaussian(m, make(a)), gj.Gaussian(n, other(b))
                )

            pair = f"{root} {other_root}"
            for function in (gj.kl_divergence, gj.cross_entropy):
                name = f"{function.__name__} {pair}"
                out[name] = two(function), (mean, lower, other_mean, other)
            out[f"logdet_divergence {pair}"] = (
                lambda a, b, f=make, g=other_make: gj.logdet_divergence(f(a), g(b)),
                (lower, other),
            )

    matrix = lower @ jnp.swapaxes(lower, -1, -2)
    out["from_cholesky"] = gj.from_cholesky, (mean, lower)
    out["from_covariance"] = gj.from_covariance, (mean, matrix)
    out["from_precision"] = gj.from_precision, (mean, matrix)
    out["from_scale"] = gj.from_scale, (mean, jnp.abs(x) + 1)
    out["from_variance"] = gj.from_variance, (mean, jnp.abs(x) + 1)
    for function in (gj.linalg.cholesky, gj.linalg.symmetric_sqrt):
        out[f"linalg.{function.__name__}"] = function, (matrix,)
    out["linalg.safe_cholesky"] = lambda a: gj.linalg.safe_cholesky(a, jitter=1e-6), (matrix,)
    for function in (gj.linalg.solve_lower, gj.linalg.solve_lower_transpose):
        out[f"linalg.{function.__name__}"] = function, (lower, x[..., None])
    out["linalg.logdet_lower"] = gj.linalg.logdet_lower, (lower,)
    out["linalg.lower_product"] = gj.linalg.lower_product, (lower, other)
    out["linalg.factor_of_sum"] = gj.linalg.factor_of_sum, (lower, other)
    pz = gj.parametrize
    vector = 0.3 * jax.random.normal(key, (batch, pz.gaussian_size(dim)))
    triangle, corner = vector[:, : pz.vector_size(dim)], vector[:, : pz.correlation_size(dim)]
    out["parametrize.gaussian_from_vector"] = lambda v: pz.gaussian_from_vector(v, dim), (vector,)
    for function in (pz.lower_from_vector, pz.scaled_lower_from_vector):
        out[f"parametrize.{function.__name__}"] = function, (triangle,)
    for function in (pz.vector_from_lower, pz.vector_from_scaled_lower, pz.vector_from_correlation):
        out[f"parametrize.{function.__name__}"] = function, (lower,)
    out["parametrize.correlation_from_vector"] = pz.correlation_from_vector, (corner,)
    check_that_all_are_there(out)
    return out


def check_that_all_are_there(names: Cases) -> None:
    """A public function that is not called here is an error."""
    without_arrays = {"batch_shape", "dim", "standard"}
    sizes = {"vector_size", "correlation_size", "gaussian_size"}
    called = {name.split()[0].split(".")[-1] for name in names} | without_arrays | sizes
    for module in (gj, gj.linalg, gj.parametrize):
        public = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        for name in public:
            value = getattr(module, name)
            if not inspect.isfunction(value) or "._" in value.__module__:
                continue  # a class, a module, or an import
            if name not in called:
                raise LookupError(f"{module.__name__}.{name} is not called by benchmarks.no_hang")


if __name__ == "__main__":
    tyro.cli(main)
