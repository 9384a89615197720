"""Diagonal plus low rank: the KL divergence and its gradient, beside torch and beside reading."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.structures.rows import (
    Row,
    cells,
    combinations,
    error_against_float64,
    ratio,
    relative_error,
    timed,
    timed_jax,
)

LOW_RANK_DIMS = (1_000, 10_000, 100_000, 1_000_000)
RANK = 8
# Torch's threads wait for each other on a busy machine.
LIBRARIES = ("gaussjax", "torch", "torch, one thread")


def rows() -> list[Row]:
    """What a process has to be told."""
    return combinations(what=("kl", "gradient"), dim=LOW_RANK_DIMS, library=LIBRARIES)


def measure(row: Row) -> Iterator[Row]:
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


def table(data: list[Row]) -> str:
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
