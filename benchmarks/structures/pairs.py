"""Errors of `kl_divergence` of all pairs of structures against 50 digits, and largest arrays."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np

from benchmarks import harness
from benchmarks.structures.rows import Function, Row, combinations, random_lower

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


def rows() -> list[Row]:
    """What a process has to be told."""
    return combinations(dtype=("float32", "float64"), p=STRUCTURES)


def measure(row: Row) -> Iterator[Row]:
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
    """Size of the largest array that a program makes or holds, and the operation that makes it."""
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


def table(data: list[Row]) -> str:
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
