"""Kronecker, banded precision and Toeplitz at d = 10⁵ and 10⁶."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.structures.rows import (
    Function,
    Row,
    cells,
    error_against_float64,
    random_lower,
    timed_jax,
)

LARGE = {
    "Kronecker of two Cholesky, d = 10⁶": ("kl", "log_prob", "sample"),
    "BandedPrecision, b = 2, d = 10⁶": ("kl", "log_prob", "sample", "entropy", "variance"),
    "Toeplitz, d = 10⁵": ("sample", "log_prob", "gradient of log_prob in the column"),
}


def rows() -> list[Row]:
    """What a process has to be told."""
    found = [(x, what) for x, measures in LARGE.items() for what in measures]
    return [{"structure": x, "what": what} for x, what in found]


def measure(row: Row) -> Iterator[Row]:
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


def table(data: list[Row]) -> str:
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
