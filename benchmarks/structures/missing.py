"""10,000 Gaussians, each with its own mask, in one call, beside a NumPy loop."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.structures.rows import (
    Row,
    cells,
    combinations,
    random_lower,
    ratio,
    relative_error,
    timed,
    timed_jax,
)

MASKED = (10_000, 16)  # Gaussians and their dimension
WAYS = ("gaussjax", "gaussjax from Σ", "NumPy")


def rows() -> list[Row]:
    """What a process has to be told."""
    return combinations(what=("condition_where", "log_prob_observed"), library=WAYS)


def measure(row: Row) -> Iterator[Row]:
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
    """Mean and covariance of the missing entries given the observed ones, one by one."""
    means, covs = np.where(mask, x, mean), np.zeros_like(sigma)
    for m, s, seen, value, out, cov in zip(mean, sigma, mask, x, means, covs, strict=True):
        rest = ~seen
        cross = s[np.ix_(seen, rest)]
        weights = np.linalg.solve(s[np.ix_(seen, seen)], cross)
        out[rest] = m[rest] + (value[seen] - m[seen]) @ weights
        cov[np.ix_(rest, rest)] = s[np.ix_(rest, rest)] - cross.T @ weights
    return means, covs


def numpy_log_prob(mean: Any, sigma: Any, mask: Any, x: Any) -> tuple[np.ndarray]:
    """Log density of the observed entries, one by one."""
    found = np.zeros(len(mean), mean.dtype)
    for i, (m, s, seen, value) in enumerate(zip(mean, sigma, mask, x, strict=True)):
        block, shift = s[np.ix_(seen, seen)], value[seen] - m[seen]
        distance = shift @ np.linalg.solve(block, shift)
        logdet = np.linalg.slogdet(block)[1]
        found[i] = -0.5 * (distance + logdet + len(shift) * math.log(2 * math.pi))
    return (found,)


def table(data: list[Row]) -> str:
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
