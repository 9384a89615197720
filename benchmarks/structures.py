"""The structures at large sizes, with missing data, and in pairs: time, memory, digits.

1. `low_rank`: KL divergence of diagonal plus low rank and its gradient, up to d = 10⁶, beside torch
   and beside the time of reading the inputs once.
2. `large`: Kronecker, banded precision and Toeplitz at d = 10⁵ and 10⁶.
3. `missing`: 10,000 Gaussians, each with a mask of its own, in one call beside a loop of NumPy.
4. `pairs`: errors of `kl_divergence` for all pairs of structures against 50 digits, and the largest
   array in its program.

Each row is measured in a process of its own, so that its peak of memory is its own. That peak is
what the process holds more at most than once its inputs (and its program) are there.
"""

import contextlib
import ctypes
import itertools
import json
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Hung, Lines

Row = dict[str, Any]
Function = Callable[..., Any]
PARTS = ("low_rank", "large", "missing", "pairs")
SECONDS = 1.0  # that the calls of a row should take
CALLS = 7  # at least, but one
SLOW = 5.0  # above so many seconds
LOW_RANK_DIMS = (1_000, 10_000, 100_000, 1_000_000)
RANK = 8
# Threads of torch wait for each other where the machine has other things to do.
LIBRARIES = ("gaussjax", "torch", "torch, one thread")
LARGE = {
    "Kronecker of two Cholesky, d = 10⁶": ("kl", "log_prob", "sample"),
    "BandedPrecision, b = 2, d = 10⁶": ("kl", "log_prob", "sample", "entropy", "variance"),
    "Toeplitz, d = 10⁵": ("sample", "log_prob", "gradient of log_prob in the column"),
}
MASKED = (10_000, 16)  # Gaussians and their dimension
WAYS = ("gaussjax", "gaussjax from Σ", "NumPy")
STRUCTURES = (
    "Isotropic",
    "Diagonal",
    "Cholesky",
    "PrecisionCholesky",
    "LowRank",
    "Kronecker",
    "BlockDiagonal",
    "StackedBlocks",
    "Circulant",
    "Toeplitz",
    "BandedPrecision",
)
PAIR_DIM, TRACED_DIM = 24, 240
SEEDS = 5
SEPARATION = 1e-4
DIGITS = 50


def main(
    parts: str = ",".join(PARTS), limit: float = 300.0, name: str = "structures", child: str = ""
) -> None:
    """Measures and writes `benchmarks/results/NAME.md` and `.json`.

    Args:
        parts: Which parts, with commas between them.
        limit: Seconds after which a row (in `pairs`, one of its pairs) is given up.
        name: Name of the files.
        child: The row to measure in this process (the parent starts itself again with this).
    """
    if child:
        answer(json.loads(child))
        return
    asked = [part for part in PARTS if part in parts.split(",")]
    state, data = harness.commit(), dict[str, list[Row]]()
    for part in asked:
        data[part] = [found for row in rows(part) for found in ask(row, limit)]
    loads = [row["load"] for part in data.values() for row in part if "load" in row]
    text = f"gaussjax at {state}. Each row in a process of its own, given up after {limit:.0f} s."
    if loads:
        text += f" Load of the machine meanwhile: {min(loads):.1f} to {max(loads):.1f}."
    text += "\n" + "".join(TABLES[part](found) for part, found in data.items())
    if harness.commit() != state:
        text = f"**The sources changed meanwhile.** {text}"
    harness.write(name, text, {"commit": state, **data})


def rows(part: str) -> list[Row]:
    """What a part measures, as far as a process has to be told."""
    if part == "large":
        found = [(x, what) for x, measures in LARGE.items() for what in measures]
        return [{"part": part, "structure": x, "what": what} for x, what in found]
    axes: dict[str, tuple[Any, ...]] = {
        "low_rank": {
            "what": ("kl", "gradient"),
            "dim": LOW_RANK_DIMS,
            "library": LIBRARIES,
        },
        "missing": {"what": ("condition_where", "log_prob_observed"), "library": WAYS},
        "pairs": {"dtype": ("float32", "float64"), "p": STRUCTURES},
    }[part]
    combinations = itertools.product(*axes.values())
    return [{"part": part, **dict(zip(axes, row, strict=True))} for row in combinations]


def ask(row: Row, limit: float) -> list[Row]:
    """What a process of its own answers, line by line, and what went wrong."""
    command = [sys.executable, "-m", "benchmarks.structures", "--child", json.dumps(row)]
    settings = {"JAX_ENABLE_X64": str(int(row.get("dtype") == "float64"))}
    if row.get("library", "").endswith("one thread"):
        settings["OMP_NUM_THREADS"] = "1"
    lines = Lines(command, settings)
    found: list[Row] = []
    try:
        while line := lines.read(limit):
            found.append({**row, **json.loads(line)})
    except Hung as hung:
        found.append({**row, "failed": str(hung)})
    if lines.wait() != 0 and not any("failed" in x for x in found):
        found.append({**row, "failed": "the process ended"})
    for one in found:
        said = {k: v for k, v in one.items() if k not in row}
        print(f"{' '.join(map(str, row.values()))}: {said}", file=sys.stderr, flush=True)
    return found


# The child ----------------------------------------------------------------------------------------


def answer(row: Row) -> None:
    """Measures one row, and prints JSON lines."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a package that prints must not answer
    try:
        for found in CHILDREN[row["part"]](row):
            print(json.dumps(found), file=answers, flush=True)
    except Exception as error:  # whatever is raised is the answer
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(json.dumps({"failed": said}), file=answers, flush=True)


def high_water(*, reset: bool = False) -> float:
    """Most MB that this process has held since the last reset."""
    if reset:  # where there is no Linux, the peak stays that of the whole process
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free would be used again, unseen
            Path("/proc/self/clear_refs").write_text("5")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def timed(call: Callable[[], Any]) -> Row:
    """Median seconds, and the peak of memory of all calls above what is there before."""
    base, load = high_water(reset=True), os.getloadavg()[0]
    begun = time.perf_counter()
    call()
    calls = 1 if time.perf_counter() - begun > SLOW else CALLS
    times: list[float] = []
    while len(times) < calls or (sum(times) < SECONDS and len(times) < 50):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    return {"median": median, "calls": len(times), "load": load, "peak": high_water() - base}


def timed_jax(function: Function, *args: Any) -> tuple[Row, Any]:
    """As `timed`, after compiling ahead of time; and the value."""
    import jax

    base, start = high_water(reset=True), time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    found = {"compile": time.perf_counter() - start, "compile_peak": high_water() - base}
    analysis: Any = compiled.memory_analysis()
    found["temp"] = getattr(analysis, "temp_size_in_bytes", None)
    found |= timed(lambda: jax.block_until_ready(compiled(*args)))
    return found, compiled(*args)


def error_against_float64(function: Function, args: tuple[Any, ...], value: Any) -> Row:
    """Largest error of any leaf, relative to its largest entry, and the norm in float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), args)
    exact = [np.asarray(x) for x in jax.tree.leaves(jax.jit(function)(*wide))]
    narrow = [np.asarray(x) for x in jax.tree.leaves(value)]
    return {
        "error": max(map(relative_error, narrow, exact)),
        "norm": math.sqrt(sum(float(np.sum(np.square(x))) for x in exact)),
    }


def relative_error(value: np.ndarray, exact: np.ndarray) -> float:
    """Largest error, relative to the largest entry."""
    return float(np.max(np.abs(value - exact)) / np.max(np.abs(exact)))


# 1. Diagonal plus low rank ------------------------------------------------------------------------


def low_rank(row: Row) -> Iterator[Row]:
    rng = np.random.default_rng(0)

    def leaves() -> list[np.ndarray]:  # mean, scale and factor
        d = row["dim"]
        scale, factor = np.exp(0.3 * rng.normal(size=d)), 0.5 * rng.normal(size=(d, RANK))
        return [x.astype(np.float32) for x in (rng.normal(size=d), scale, factor)]

    one, other = leaves(), leaves()
    if row["library"] != "gaussjax":
        yield low_rank_torch(row["what"], [*one, *other])
        return
    import jax
    import jax.numpy as jnp

    import gaussjax as gj

    def gaussian(mean: Any, scale: Any, factor: Any) -> gj.Gaussian:
        return gj.Gaussian(jnp.asarray(mean), gj.LowRank(jnp.asarray(scale), jnp.asarray(factor)))

    args = jax.block_until_ready((gaussian(*one), gaussian(*other)))
    function = gj.kl_divergence
    if row["what"] == "gradient":
        function = jax.grad(gj.kl_divergence, argnums=(0, 1))
    found, value = timed_jax(function, *args)
    read, _ = timed_jax(lambda *trees: [jnp.sum(x) for x in jax.tree.leaves(trees)], *args)
    found["read"] = read["median"]
    yield found | error_against_float64(function, args, value)


def low_rank_torch(what: str, arrays: list[np.ndarray]) -> Row:
    if not harness.installed("torch"):
        return {"failed": "not installed"}
    import torch  # pyright: ignore[reportMissingImports]  # optional

    def kl(leaves: list[Any]) -> Any:
        p, q = (
            torch.distributions.LowRankMultivariateNormal(
                mean, factor, scale.square(), validate_args=False
            )
            for mean, scale, factor in (leaves[:3], leaves[3:])
        )
        return torch.distributions.kl_divergence(p, q)

    def function(leaves: list[Any]) -> list[Any]:
        if what == "kl":
            return [kl(leaves)]
        leaves = [x.detach().requires_grad_() for x in leaves]
        return list(torch.autograd.grad(kl(leaves), leaves))

    args = [torch.as_tensor(x) for x in arrays]
    found, value = timed(lambda: function(args)), function(args)
    exact = [x.numpy() for x in function([x.double() for x in args])]
    found["error"] = max(map(relative_error, [x.numpy() for x in value], exact))
    found["norm"] = math.sqrt(sum(float(np.sum(np.square(x))) for x in exact))
    return found


def low_rank_table(data: list[Row]) -> str:
    header = [
        "d",
        "gaussjax, ms",
        "peak, MB",
        "temporary, MB",
        "compiling, s",
        "reading, ms",
        "/ reading",
        "error",
        "torch, ms",
        "torch, one thread, ms",
        "its peak, MB",
        "its error",
        "faster torch / gaussjax",
    ]
    text = f"\n## LowRank and LowRank, r = {RANK}, float32\n"
    for what, title in (("kl", "`kl_divergence`"), ("gradient", "Its gradient in all leaves")):
        lines = []
        for dim in LOW_RANK_DIMS:
            found = {x["library"]: x for x in data if (x["what"], x["dim"]) == (what, dim)}
            ours, torch, one = (found[library] for library in LIBRARIES)
            line = [f"{dim:,}", *cells(ours, ("median", 1e3, ".3g"), ("peak", 1, ".1f"))]
            line += cells(ours, ("temp", 1e-6, ".3g"), ("compile", 1, ".1f"), ("read", 1e3, ".3g"))
            line += [ratio(ours.get("median"), ours.get("read"))]
            line += [*cells(ours, ("error", 1, ".0e")), *cells(torch, ("median", 1e3, ".3g"))]
            line += cells(one, ("median", 1e3, ".3g"), ("peak", 1, ".1f"), ("error", 1, ".0e"))
            peers = [x["median"] for x in (torch, one) if "median" in x]
            lines.append([*line, ratio(min(peers, default=None), ours.get("median"))])
        text += f"\n### {title}\n\n{harness.table(header, lines)}"
    return (
        f"{text}\nReading: the jitted sum over every leaf. Error: against the same in float64, "
        "relative to the largest entry of each leaf.\n"
    )


# 2. Large structures ------------------------------------------------------------------------------


def large(row: Row) -> Iterator[Row]:
    import jax

    function, args = large_case(row["structure"].split()[0].rstrip(","), row["what"])
    jax.block_until_ready(args)
    found, value = timed_jax(function, *args)
    if row["what"] == "sample":
        yield found | {"finite": bool(np.all(np.isfinite(value)))}
        return
    yield found  # float64 may take longer than the limit
    yield error_against_float64(function, args, value)


def large_case(structure: str, what: str) -> tuple[Function, tuple[Any, ...]]:
    import jax
    import jax.numpy as jnp

    import gaussjax as gj

    rng = np.random.default_rng(0)

    def array(x: Any) -> jax.Array:
        return jnp.asarray(x, jnp.float32)

    def gaussian() -> gj.Gaussian:
        if structure == "Kronecker":
            cov: gj.Covariance = gj.Kronecker((cholesky(1000), cholesky(1000)))
        elif structure == "BandedPrecision":
            lower = 0.3 * rng.normal(size=(3, 1_000_000))
            lower[0] = np.exp(lower[0])
            cov = gj.BandedPrecision(array(lower))
        else:
            column = 0.99 ** np.arange(100_000)
            column[0] += 0.1
            cov = gj.Toeplitz(array(column))
        return gj.Gaussian(array(rng.normal(size=cov.dim)), cov)

    def cholesky(d: int) -> gj.Cholesky:
        return gj.Cholesky(array(random_lower(rng, d)))

    p = gaussian()
    if what == "kl":
        return gj.kl_divergence, (p, gaussian())
    if what == "sample":
        return lambda g, key: gj.sample(key, g), (p, jax.random.key(0))
    if what in ("entropy", "variance"):
        return getattr(gj, what), (p,)
    x = array(rng.normal(size=gj.dim(p)))
    if what == "log_prob":
        return gj.log_prob, (p, x)

    def of_column(column: jax.Array, mean: jax.Array, x: jax.Array) -> jax.Array:
        return gj.log_prob(gj.Gaussian(mean, gj.Toeplitz(column)), x)

    (column,) = jax.tree.leaves(p.cov)
    return jax.grad(of_column), (column, p.mean, x)


def large_table(data: list[Row]) -> str:
    header = ["", "s", "peak, MB", "temporary, MB", "compiling, s", "peak compiling, MB", "error"]
    text = "\n## Large structures, float32\n"
    for structure, measures in LARGE.items():
        lines = []
        for what in measures:
            row: Row = {}
            for found in data:
                if (found["structure"], found["what"]) == (structure, what):
                    row |= found
            if "median" in row:
                row.pop("failed", None)  # in float64
            line = [what, *cells(row, ("median", 1, ".3g"), ("peak", 1, ".1f"))]
            line += cells(row, ("temp", 1e-6, ".3g"), ("compile", 1, ".1f"))
            line += cells(row, ("compile_peak", 1, ".0f"), ("error", 1, ".0e"))
            lines.append(line)
        text += f"\n### {structure}\n\n{harness.table(header, lines)}"
    return (
        f"{text}\nError: against the same in float64, relative to the largest entry; "
        "none for samples.\n"
    )


# 3. Missing data ----------------------------------------------------------------------------------


def missing(row: Row) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    count, dim = MASKED
    lower = random_lower(rng, dim, count).astype(np.float32)
    mean, x = rng.normal(size=(2, count, dim)).astype(np.float32)
    mask = rng.uniform(size=(count, dim)) < rng.uniform(size=(count, 1))
    x[~mask] = np.nan
    sigma = lower @ np.swapaxes(lower, 1, 2)
    loop = numpy_condition if row["what"] == "condition_where" else numpy_log_prob
    wide = [z.astype(float) for z in (lower, mean, x)]
    exact = loop(wide[1], wide[0] @ np.swapaxes(wide[0], 1, 2), mask, wide[2])
    if row["library"] == "NumPy":
        value = loop(mean, sigma, mask, x)
        errors = map(relative_error, value, exact)
        yield timed(lambda: loop(mean, sigma, mask, x)) | {"error": max(errors)}
        return
    import jax.numpy as jnp

    import gaussjax as gj

    def function(mean: Any, matrix: Any, mask: Any, x: Any) -> Any:
        if row["library"] == "gaussjax":
            g = gj.Gaussian(mean, gj.Cholesky(matrix))
        else:
            g = gj.from_covariance(mean, matrix)
        if row["what"] == "condition_where":
            return gj.condition_where(g, x, mask=mask)
        return gj.log_prob_observed(g, x, mask=mask)

    matrix = lower if row["library"] == "gaussjax" else sigma
    found, law = timed_jax(function, *(jnp.asarray(z) for z in (mean, matrix, mask, x)))
    value = (law,) if row["what"] == "log_prob_observed" else (law.mean, gj.covariance(law))
    yield found | {"error": max(map(relative_error, map(np.asarray, value), exact))}


def numpy_condition(mean: Any, sigma: Any, mask: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of what is missing given what is observed, Gaussian by Gaussian."""
    means, covs = np.where(mask, x, mean), np.zeros_like(sigma)
    for m, s, seen, value, out, cov in zip(mean, sigma, mask, x, means, covs, strict=True):
        rest = ~seen
        cross = s[np.ix_(seen, rest)]
        weights = np.linalg.solve(s[np.ix_(seen, seen)], cross)
        out[rest] = m[rest] + (value[seen] - m[seen]) @ weights
        cov[np.ix_(rest, rest)] = s[np.ix_(rest, rest)] - cross.T @ weights
    return means, covs


def numpy_log_prob(mean: Any, sigma: Any, mask: Any, x: Any) -> tuple[np.ndarray]:
    """Log density of what is observed, Gaussian by Gaussian."""
    found = np.zeros(len(mean), mean.dtype)
    for i, (m, s, seen, value) in enumerate(zip(mean, sigma, mask, x, strict=True)):
        block, shift = s[np.ix_(seen, seen)], value[seen] - m[seen]
        distance = shift @ np.linalg.solve(block, shift)
        logdet = np.linalg.slogdet(block)[1]
        found[i] = -0.5 * (distance + logdet + len(shift) * math.log(2 * math.pi))
    return (found,)


def missing_table(data: list[Row]) -> str:
    header = [
        "",
        *(f"{library}, ms" for library in WAYS),
        *(f"NumPy / {library}" for library in WAYS[:2]),
        *(f"peak of {library}, MB" for library in WAYS),
        *(f"error of {library}" for library in WAYS),
    ]
    lines = []
    for what in dict.fromkeys(row["what"] for row in data):
        row = {x["library"]: x for x in data if x["what"] == what}
        line = [f"`{what}`"]
        line += [cells(row[x], ("median", 1e3, ".3g"))[0] for x in WAYS]
        line += [ratio(row["NumPy"].get("median"), row[x].get("median")) for x in WAYS[:2]]
        line += [cells(row[x], ("peak", 1, ".1f"))[0] for x in WAYS]
        lines.append(line + [cells(row[x], ("error", 1, ".0e"))[0] for x in WAYS])
    count, dim = MASKED
    return (
        f"\n## Missing data: {count:,} Gaussians of d = {dim}, each with a mask of its own\n\n"
        f"{harness.table(header, lines)}\nfloat32; NumPy {np.__version__}, a loop of solves, is "
        "given Σ. Errors against NumPy in float64, relative to the largest entry.\n"
    )


# 4. All pairs -------------------------------------------------------------------------------------


def pairs(row: Row) -> Iterator[Row]:
    """The pairs whose first structure is `p`, one after the other."""
    import jax
    import jax.numpy as jnp

    import gaussjax as gj

    def gaussian(name: str, dim: int, rng: np.random.Generator) -> gj.Gaussian:
        g = gj.Gaussian(rng.normal(size=dim), random_covariance(name, dim, rng))
        return jax.tree.map(lambda x: jnp.asarray(x, row["dtype"]), g)

    def moved(g: gj.Gaussian, rng: np.random.Generator) -> gj.Gaussian:
        def nearby(x: jax.Array) -> jax.Array:
            factor = 1 + SEPARATION * rng.uniform(-1, 1, size=x.shape)
            return jnp.asarray(np.asarray(x, float) * factor, row["dtype"])

        return jax.tree.map(nearby, g)

    for other in STRUCTURES:
        kl = jax.jit(gj.kl_divergence)
        errors: dict[str, list[float]] = {"error": [], "near": []}
        for seed in range(SEEDS):
            rng = np.random.default_rng([seed, STRUCTURES.index(row["p"])])
            p = gaussian(row["p"], PAIR_DIM, rng)
            errors["error"].append(error_of_kl(kl, p, gaussian(other, PAIR_DIM, rng)))
            if other == row["p"]:
                errors["near"].append(error_of_kl(kl, p, moved(p, rng)))
        found: Row = {"q": other}
        for which, values in errors.items():
            if values:  # the worst, and any NaN
                found[which] = float(np.max(values))
        if row["dtype"] == "float32":
            rng = np.random.default_rng(0)
            two = gaussian(row["p"], TRACED_DIM, rng), gaussian(other, TRACED_DIM, rng)
            traced = jax.make_jaxpr(gj.kl_divergence)(*two)
            found["largest"], found["made_by"] = largest_array(traced)
        yield found


def error_of_kl(kl: Function, p: Any, q: Any) -> float:
    """Relative error against the textbook formula in 50 digits."""
    value = float(kl(p, q))
    with mpmath.workdps(DIGITS):
        a, b = (mp_cholesky(mp_dense(g.cov)) for g in (p, q))
        shift = exactly(p.mean) - exactly(q.mean)
        solved = mp_solve(b, np.column_stack([a, shift]))
        logs = sum(mpmath.log(y / x) for x, y in zip(np.diag(a), np.diag(b), strict=True))
        exact = (np.sum(solved * solved) - len(a)) / 2 + logs
        return float(abs(value - exact) / exact) if math.isfinite(value) else math.nan


def random_lower(rng: np.random.Generator, dim: int, *batch: int) -> np.ndarray:
    """Well conditioned factors with a positive diagonal, in float64."""
    lower = np.tril(rng.normal(size=(*batch, dim, dim)), -1) * 0.5 / np.sqrt(dim)
    return lower + np.eye(dim) * np.exp(0.3 * rng.normal(size=(*batch, 1, dim)))


def random_covariance(name: str, dim: int, rng: np.random.Generator) -> Any:
    """A well conditioned structure with leaves in float64."""
    import gaussjax as gj

    def lower(d: int, *batch: int) -> np.ndarray:
        return random_lower(rng, d, *batch)

    def scales(*shape: int) -> np.ndarray:
        return np.exp(0.3 * rng.normal(size=shape))

    def band() -> np.ndarray:
        diagonals = 0.3 * rng.normal(size=(3, dim))
        diagonals[0] = np.exp(diagonals[0])
        return diagonals

    def column() -> np.ndarray:
        found = scales(1) * rng.uniform(0.3, 0.8) ** np.arange(dim)
        found[0] += 0.5
        return found

    def blocks() -> Any:
        for i in range(dim // 8):
            roots = (gj.Cholesky, gj.PrecisionCholesky)
            yield roots[i // 2 % 2](lower(8)) if i % 2 == 0 else gj.Diagonal(scales(8))

    first = next(n for n in range(math.isqrt(dim), 0, -1) if dim % n == 0)
    makers: dict[str, Callable[[], Any]] = {
        "Isotropic": lambda: gj.Isotropic(scales(), dim),
        "Diagonal": lambda: gj.Diagonal(scales(dim)),
        "Cholesky": lambda: gj.Cholesky(lower(dim)),
        "PrecisionCholesky": lambda: gj.PrecisionCholesky(lower(dim)),
        "LowRank": lambda: gj.LowRank(scales(dim), 0.5 * rng.normal(size=(dim, 3))),
        "Kronecker": lambda: gj.Kronecker(
            (gj.Cholesky(lower(first)), gj.Cholesky(lower(dim // first)))
        ),
        "BlockDiagonal": lambda: gj.BlockDiagonal(tuple(blocks())),
        "StackedBlocks": lambda: gj.StackedBlocks(gj.Cholesky(lower(6, dim // 6))),
        "Circulant": lambda: gj.Circulant(rng.uniform(0.5, 2.0, size=dim)),
        "Toeplitz": lambda: gj.Toeplitz(column()),
        "BandedPrecision": lambda: gj.BandedPrecision(band()),
    }
    return makers[name]()


def exactly(array: Any) -> np.ndarray:
    """The same numbers as mpmath's."""
    flat = [mpmath.mpf(float(x)) for x in np.ravel(array)]
    return np.array(flat, dtype=object).reshape(np.shape(array))


def mp_dense(cov: Any) -> np.ndarray:
    """Σ from the leaves of a structure, as its docstring says."""
    import jax

    name, d = type(cov).__name__, cov.dim
    if name in ("Isotropic", "Diagonal"):
        return np.diag(np.broadcast_to(exactly(cov.scale), (d,)) ** 2)
    if name in ("Cholesky", "PrecisionCholesky"):
        lower = np.tril(exactly(cov.lower))
        return lower @ lower.T if name == "Cholesky" else mp_inverse(lower)
    if name == "LowRank":
        factor = exactly(cov.factor)
        return np.diag(exactly(cov.scale) ** 2) + factor @ factor.T
    if name == "Kronecker":
        one, other = (mp_dense(x) for x in cov.factors)
        return np.block([[x * other for x in line] for line in one])
    if name in ("BlockDiagonal", "StackedBlocks"):
        if name == "BlockDiagonal":
            parts = cov.blocks
        else:
            count = len(jax.tree.leaves(cov.blocks)[0])
            parts = [jax.tree.map(lambda x, i=i: x[i], cov.blocks) for i in range(count)]
        sigma, start = exactly(np.zeros((d, d))), 0
        for part in parts:
            sigma[start : start + part.dim, start : start + part.dim] = mp_dense(part)
            start += part.dim
        return sigma
    away = np.abs(np.arange(d)[:, None] - np.arange(d)[None])
    if name == "Toeplitz":
        return exactly(cov.column)[away]
    if name == "Circulant":
        index = np.arange(d)
        spectrum = exactly(cov.spectrum)[np.minimum(index, d - index)]
        cosines = np.array([mpmath.cospi(mpmath.mpf(2 * k) / d) for k in range(d)], dtype=object)
        return (cosines[np.outer(index, index) % d] @ spectrum / d)[away]
    if name == "BandedPrecision":
        lower = exactly(np.zeros((d, d)))
        for k, diagonal in enumerate(exactly(cov.lower)):
            for i in range(d - k):
                lower[i + k, i] = diagonal[i]
        return mp_inverse(lower)
    raise LookupError(name)


def mp_cholesky(matrix: np.ndarray) -> np.ndarray:
    lower = exactly(np.zeros(matrix.shape))
    for j in range(len(matrix)):
        rest = matrix[j:, j] - lower[j:, :j] @ lower[j, :j] if j else matrix[j:, j]
        lower[j:, j] = rest / mpmath.sqrt(rest[0])
    return lower


def mp_solve(lower: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Forward substitution."""
    out = rhs.copy()
    for i in range(len(lower)):
        out[i] = (rhs[i] - (lower[i, :i] @ out[:i] if i else 0)) / lower[i, i]
    return out


def mp_inverse(lower: np.ndarray) -> np.ndarray:
    """Inverse of L Lᵀ."""
    inverse = mp_solve(lower, exactly(np.eye(len(lower))))
    return inverse.T @ inverse


def largest_array(closed: Any) -> tuple[int, str]:
    """Elements of the largest array that a program makes or holds, and which operation makes it."""
    found = [(int(np.size(x)), "constant") for x in closed.consts]
    for equation in closed.jaxpr.eqns:
        name = equation.primitive.name
        found += [(math.prod(out.aval.shape), name) for out in equation.outvars]
        for inner in inner_programs(list(equation.params.values())):
            found.append(largest_array(inner))
    return max(found, default=(0, ""))


def inner_programs(values: Any) -> Iterator[Any]:
    """The programs among the parameters of an operation: of its branches, its loop, its call."""
    from jax.extend.core import ClosedJaxpr, Jaxpr

    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value
        elif isinstance(value, Jaxpr):
            yield ClosedJaxpr(value, [])
        elif isinstance(value, list | tuple):
            yield from inner_programs(value)


def pairs_table(data: list[Row]) -> str:
    def grid(dtype: str, text: Callable[[Row], str]) -> str:
        lines = []
        for p in STRUCTURES:
            mine = [x for x in data if (x["dtype"], x["p"]) == (dtype, p)]
            found = {x["q"]: x for x in mine if "q" in x}
            lost = next((x["failed"] for x in mine if "failed" in x), "-")
            lines.append([p, *(text(found[q]) if q in found else lost for q in STRUCTURES)])
        return harness.table(["p \\ q", *STRUCTURES], lines)

    def size(row: Row) -> str:
        large, d = row["largest"], TRACED_DIM
        return f"**{large / d:.3g}**" if large >= d * d else f"{large / d:.3g}"

    near = {(x["p"], x["dtype"]): x["near"] for x in data if "near" in x}
    lines = [
        [p, *(f"{near.get((p, x), math.nan):.0e}" for x in ("float32", "float64"))]
        for p in STRUCTURES
    ]
    title = f"\n## All pairs: worst relative error of `kl_divergence`, d = {PAIR_DIM}"
    text = f"{title}\n\nAgainst {DIGITS} digits, {SEEDS} random pairs each.\n"
    for dtype in ("float32", "float64"):
        errors = grid(dtype, lambda row: format(row["error"], ".0e"))
        text += f"\n### {dtype}\n\n{errors}"
    neighbours = harness.table(["", "float32", "float64"], lines)
    text += f"\n### q one part in 10⁴ from p\n\n{neighbours}"
    text += f"\n### Largest array in the program of `kl_divergence`, d = {TRACED_DIM}\n\n"
    return (
        f"{text}In multiples of d; **bold** where it reaches d × d = {TRACED_DIM} d.\n\n"
        f"{grid('float32', size)}"
    )


# Text ---------------------------------------------------------------------------------------------


def cells(row: Row, *columns: tuple[str, float, str]) -> list[str]:
    """Numbers in other units; where the first is missing, what went wrong."""
    texts = []
    for key, unit, form in columns:
        value = row.get(key)
        missing = row.get("failed", "-") if key == "median" else "-"
        texts.append(missing if value is None else format(unit * value, form))
    return texts


def ratio(over: float | None, under: float | None) -> str:
    return f"{over / under:.1f}" if over and under else "-"


CHILDREN: dict[str, Callable[[Row], Iterator[Row]]] = {
    "low_rank": low_rank,
    "large": large,
    "missing": missing,
    "pairs": pairs,
}
TABLES: dict[str, Callable[[list[Row]], str]] = {
    "low_rank": low_rank_table,
    "large": large_table,
    "missing": missing_table,
    "pairs": pairs_table,
}

if __name__ == "__main__":
    tyro.cli(main)
