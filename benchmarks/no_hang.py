"""Nothing hangs: every public function and its gradient, 200 times at B = 100,000.

Batched LAPACK calls of jaxlib up to 0.10.2 can deadlock on few cores. Here a child process with the
default threads calls the value and the gradient of each function and reports each; if it is silent
for too long, it counts as hung. Structures that are not dense appear through the densities of their
constructors.
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
Arrays = tuple[jax.Array, ...]
Cases = dict[str, tuple[Function, Arrays]]
KEY = jax.random.key(0)


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
    """Runs a child, forwards its lines, and sorts them into finished and hung."""
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
    """Every public function that computes something, by name, for an even `dim`."""
    keys = iter(jax.random.split(jax.random.key(dim), 8))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), (batch, *shape))

    def factor() -> jax.Array:
        below = jnp.tril(normal(dim, dim), -1) * 0.5 / dim**0.5
        return below + jnp.eye(dim) * jnp.exp(0.3 * normal(1, dim))

    x = normal(dim)
    one, other = (normal(dim), factor()), (normal(dim), factor())
    found = {
        **_of_roots(one, other, x),
        **_of_laws(one, other, x),
        **_constructors(one, x),
        **_of_linalg(one[1], other[1], x),
        **_parametrizations(one[1]),
        **_of_data(x),
    }
    check_that_all_are_there(found)
    return found


def _of_roots(one: Arrays, other: Arrays, x: jax.Array) -> Cases:
    """Functions that depend on the root that a dense structure stores."""
    out: Cases = {}
    roots = {"Cholesky": gj.Cholesky, "PrecisionCholesky": gj.PrecisionCholesky}
    for root, make in roots.items():

        def of(function: Function, make: Function = make) -> Function:
            return lambda m, a, *rest: function(gj.Gaussian(m, make(a)), *rest)

        for function in (gj.mean, gj.variance, gj.stddev, gj.covariance, gj.precision, gj.entropy):
            out[f"{function.__name__} {root}"] = of(function), one
        for function in (gj.log_prob, gj.score, gj.mahalanobis, gj.whiten, gj.color):
            out[f"{function.__name__} {root}"] = of(function), (*one, x)
        out[f"color_symmetric {root}"] = of(gj.color_symmetric), (*one, x)
        for function in (gj.sample, gj.sample_and_log_prob):
            draw = of(lambda g, function=function: function(KEY, g))
            out[f"{function.__name__} {root}"] = draw, one
        for other_root, other_make in roots.items():
            pair = f"{root} {other_root}"
            for function in (gj.kl_divergence, gj.cross_entropy):
                name = f"{function.__name__} {pair}"
                out[name] = _of_two(function, make, other_make), (*one, *other)
            out[f"logdet_divergence {pair}"] = (
                lambda a, b, f=make, g=other_make: gj.logdet_divergence(f(a), g(b)),
                (one[1], other[1]),
            )
    return out


def _of_laws(one: Arrays, other: Arrays, x: jax.Array) -> Cases:
    """Gaussians in, Gaussians out, and missing data."""
    dim = x.shape[-1]
    design = jnp.eye(dim)[::2] + 0.1
    seen, value = tuple(range(0, dim, 2)), x[..., ::2]
    mask = jnp.arange(dim) % 2 == 0
    noise = gj.from_scale(jnp.zeros(dim // 2), jnp.ones(dim // 2))
    functions: dict[str, Function] = {
        "affine": lambda g, x, v: gj.affine(g, design),
        "shift": lambda g, x, v: gj.shift(g, x),
        "scale_by": lambda g, x, v: gj.scale_by(g, x),
        "marginal": lambda g, x, v: gj.marginal(g, seen),
        "condition": lambda g, x, v: gj.condition(g, seen, v),
        "condition_where": lambda g, x, v: gj.condition_where(g, x, mask=mask),
        "log_prob_observed": lambda g, x, v: gj.log_prob_observed(g, x, mask=mask),
        "impute": lambda g, x, v: gj.impute(KEY, g, x, mask=mask),
        "joint": lambda g, x, v: gj.joint(g, design, noise),
        "observe": lambda g, x, v: gj.observe(g, design, noise, v),
        "observe with a mask": lambda g, x, v: gj.observe(
            g, design, noise, v, mask=jnp.arange(dim // 2) % 2 == 0
        ),
        "smooth_step": lambda g, x, v: gj.smooth_step(g, jnp.eye(dim), g, g),
        "rank": lambda g, x, v: gj.rank(g),
        "log_prob_on_support": lambda g, x, v: gj.log_prob_on_support(g, x),
        "as_cholesky": lambda g, x, v: gj.as_cholesky(g),
        "logdet": lambda g, x, v: gj.logdet(g),
        "solve": lambda g, x, v: gj.solve(g, x),
        "matvec": lambda g, x, v: gj.matvec(g, x),
        "jensen_shannon_estimate": lambda g, x, v: gj.jensen_shannon_estimate(
            KEY, g, gj.standard(dim), 2
        ),
        "maximum_mean_discrepancy": lambda g, x, v: gj.maximum_mean_discrepancy(
            g, gj.standard(dim), bandwidth=1.0
        ),
        "wasserstein2_barycenter": lambda g, x, v: gj.wasserstein2_barycenter(
            gj.reshape(g, (2, -1)), steps=2
        ),
        "wasserstein2_map": lambda g, x, v: gj.wasserstein2_map(g, gj.standard(dim), x),
        "mutual_information": lambda g, x, v: gj.mutual_information(g, seen),
        "total_correlation": lambda g, x, v: gj.total_correlation(g),
    }
    out: Cases = {
        name: (_of_cholesky(function), (*one, x, value)) for name, function in functions.items()
    }
    of_two = gj.product, gj.convolve, gj.jeffreys_divergence, gj.decoupled_kl
    of_two += gj.bhattacharyya_distance, gj.hellinger_distance, gj.chi_squared_divergence
    of_two += gj.fisher_vector_product, gj.natural_gradient
    of_two += gj.jensen_shannon_divergence, gj.fisher_rao_distance, gj.fisher_rao_bounds
    of_two += gj.frechet_distance, gj.wasserstein2
    of_two += (partial(gj.renyi_divergence, order=0.3),)
    for function in of_two:
        name = getattr(function, "__name__", "renyi_divergence")
        out[name] = _of_two(function, gj.Cholesky, gj.Cholesky), (*one, *other)
    for function in (gj.add, gj.trace_solve):
        out[function.__name__] = (
            lambda a, b, f=function: f(gj.Cholesky(a), gj.Cholesky(b)),
            (one[1], other[1]),
        )
    return out


def _constructors(one: Arrays, x: jax.Array) -> Cases:
    """Densities of what the constructors make, so that their solves are called too."""
    mean, lower = one
    n = x.shape[-1] // 2
    matrix = lower @ jnp.swapaxes(lower, -1, -2)
    positive, decaying = jnp.abs(x) + 1, jnp.broadcast_to(0.5 ** jnp.arange(2.0 * n), x.shape)
    band = jnp.stack([positive + 2, jnp.ones_like(x)], axis=-2)
    parts: dict[str, tuple[Function, Arrays]] = {
        "from_cholesky": (gj.from_cholesky, (lower,)),
        "from_covariance": (gj.from_covariance, (matrix,)),
        "from_precision": (gj.from_precision, (matrix,)),
        "from_root": (gj.from_root, (lower,)),
        "from_semidefinite": (gj.from_semidefinite, (matrix,)),
        "from_scale": (gj.from_scale, (positive,)),
        "from_isotropic": (gj.from_isotropic, (positive[..., 0],)),
        "from_variance": (gj.from_variance, (positive,)),
        "from_low_rank": (gj.from_low_rank, (positive, lower[..., :1])),
        "from_banded_precision": (gj.from_banded_precision, (band,)),
        "from_toeplitz": (gj.from_toeplitz, (decaying,)),
        "from_circulant": (gj.from_circulant, (jnp.full_like(x, 0.1).at[..., 0].set(1.0),)),
        "from_block_diagonal": (
            lambda m, a, b: gj.from_block_diagonal(m, [a, b]),
            (matrix[..., :n, :n], matrix[..., n:, n:]),
        ),
        "from_kronecker": (
            lambda m, a, b: gj.from_kronecker(m, [a, b]),
            (matrix[..., :2, :2], matrix[..., :n, :n]),
        ),
    }
    return {
        name: (lambda x, m, *a, make=make: gj.log_prob(make(m, *a), x), (x, mean, *arrays))
        for name, (make, arrays) in parts.items()
    }


def _of_linalg(lower: jax.Array, other: jax.Array, x: jax.Array) -> Cases:
    matrix = lower @ jnp.swapaxes(lower, -1, -2)
    column, corner = 0.1 * x[..., None], jnp.full((*x.shape[:-1], 1, 1), 1e3)
    la = gj.linalg
    found: Cases = {
        "cholesky": (la.cholesky, (matrix,)),
        "symmetric_sqrt": (la.symmetric_sqrt, (matrix,)),
        "safe_cholesky": (lambda a: la.safe_cholesky(a, jitter=1e-6), (matrix,)),
        "solve_lower": (la.solve_lower, (lower, x[..., None])),
        "solve_lower_transpose": (la.solve_lower_transpose, (lower, x[..., None])),
        "logdet_lower": (la.logdet_lower, (lower,)),
        "lower_product": (la.lower_product, (lower, other)),
        "factor_of_sum": (la.factor_of_sum, (lower, other)),
        "update": (la.update, (lower, column)),
        "downdate": (la.downdate, (lower, column)),
        "append": (la.append, (lower, column, corner)),
        "delete": (lambda a: la.delete(a, 0), (lower,)),
    }
    return {f"linalg.{name}": case for name, case in found.items()}


def _parametrizations(lower: jax.Array) -> Cases:
    pz, dim = gj.parametrize, lower.shape[-1]
    vector = 0.3 * jax.random.normal(KEY, (len(lower), pz.gaussian_size(dim)))
    triangle, corner = vector[:, : pz.vector_size(dim)], vector[:, : pz.correlation_size(dim)]
    found: Cases = {
        "gaussian_from_vector": (lambda v: pz.gaussian_from_vector(v, dim), (vector,)),
        "correlation_from_vector": (pz.correlation_from_vector, (corner,)),
    }
    for function in (pz.lower_from_vector, pz.scaled_lower_from_vector):
        found[function.__name__] = function, (triangle,)
    for function in (pz.vector_from_lower, pz.vector_from_scaled_lower, pz.vector_from_correlation):
        found[function.__name__] = function, (lower,)
    for function in (pz.lower_log_jacobian, pz.scaled_lower_log_jacobian):
        found[function.__name__] = function, (triangle,)
    for function in (pz.covariance_log_jacobian, pz.correlation_matrix_log_jacobian):
        found[function.__name__] = function, (lower,)
    found["correlation_log_jacobian"] = pz.correlation_log_jacobian, (corner,)
    found["gaussian_log_jacobian"] = lambda v: pz.gaussian_log_jacobian(v, dim), (vector,)
    found["vector_from_gaussian"] = (
        _of_cholesky(pz.vector_from_gaussian),
        (vector[:, :dim], lower),
    )
    return {f"parametrize.{name}": case for name, case in found.items()}


def _of_data(x: jax.Array) -> Cases:
    """Each Gaussian from a few rows of data."""
    dim = x.shape[-1]
    noise = jax.random.normal(KEY, (*x.shape[:-1], dim + 2, dim))
    rows = noise + x[..., None, :]
    names = ("Isotropic", "Diagonal", "Cholesky", "BandedPrecision", "Circulant")
    options: dict[str, Any] = {"BandedPrecision": {"bandwidth": 1}}
    out: Cases = {
        f"fit {name}": (
            lambda x, s=name: gj.fit(x, structure=getattr(gj, s), **options.get(s, {})),
            (rows,),
        )
        for name in names
    }
    shrunk = (gj.ledoit_wolf, gj.oas, gj.constant_correlation, gj.ledoit_wolf_shrinkage)
    for function in (*shrunk, gj.oas_shrinkage, gj.constant_correlation_shrinkage):
        out[function.__name__] = function, (rows,)
    mask = noise < 1
    out["em_step"] = lambda x: gj.em_step(gj.standard(dim), x, mask=mask), (rows,)
    out["correlation"] = lambda x: gj.correlation(gj.fit(x)), (rows,)
    out["partial_correlation"] = lambda x: gj.partial_correlation(gj.fit(x)), (rows,)
    out["aic"] = lambda x: gj.aic(gj.fit(x), x), (rows,)
    out["bic"] = lambda x: gj.bic(gj.fit(x), x), (rows,)
    out["outliers"] = lambda x: gj.outliers(gj.standard(dim), x, level=jnp.float32(0.9)), (x,)
    triangle = {
        "lkj_log_prob": lambda a: gj.lkj_log_prob(a, 2.0),
        "wishart_log_prob": lambda a: gj.wishart_log_prob(a, dim + 1.0, jnp.eye(dim)),
        "inverse_wishart_log_prob": lambda a: gj.inverse_wishart_log_prob(
            a, dim + 1.0, jnp.eye(dim)
        ),
    }
    out |= {n: (f, (jnp.eye(dim) + 0.1 * rows[..., :dim, :] ** 2,)) for n, f in triangle.items()}
    out["pool_imputations"] = lambda x: gj.pool_imputations(x, jnp.square(x)), (x,)
    out["moments"] = gj.moments, (rows,)
    out["merge_moments"] = lambda x: gj.merge_moments(gj.moments(x), gj.moments(x[::-1])), (rows,)
    return out


def _of_cholesky(function: Function) -> Function:
    return lambda m, a, *rest: function(gj.Gaussian(m, gj.Cholesky(a)), *rest)


def _of_two(function: Function, make: Function, other: Function) -> Function:
    return lambda m, a, n, b: function(gj.Gaussian(m, make(a)), gj.Gaussian(n, other(b)))


def check_that_all_are_there(names: Cases) -> None:
    """Raises if a public function is not called here."""
    without_arrays = {"batch_shape", "dim", "standard"}
    without_arrays |= {"broadcast_to", "concatenate", "reshape", "stack", "take"}
    without_arrays |= {"form_of"}
    without_arrays |= {"from_sharded_covariance"}  # one Gaussian for several devices
    without_arrays |= {"merge_moments_over"}  # the same
    without_arrays |= {"nonlinear_shrinkage", "shrunk_eigenvalues"}  # no gradient
    without_arrays |= {"factor_analysis", "confidence_region"}  # the same
    without_arrays |= {"fit_missing"}  # a loop; em_step is called
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
