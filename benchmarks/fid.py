"""The FID of n features of size d, beside plain JAX, scipy, torchmetrics' formula and POT.

    python -m benchmarks.fid    # on a machine that does nothing else

gaussjax and plain JAX take float32, the others float64, as they are used. Milliseconds, what the
memory of a process rises by, and the relative error against singular values in float64.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import gaussjax as gj
from benchmarks import harness
from benchmarks.distances import DIGITS, milliseconds, symmetric_root

SECONDS = 2.0


def main(
    shapes: tuple[tuple[int, int], ...] = ((256, 2048), (4096, 2048)),
    limit: float = 300.0,
    child: bool = False,
) -> None:
    """Measures and writes `benchmarks/results/fid.md` and `.json`.

    Args:
        shapes: Numbers n and sizes d of the features.
        limit: Seconds that one may take.
        child: Whether this process measures what it reads (the parent starts itself with this).
    """
    if child:
        harness.answer(measured)
        return
    cells = []
    for count, dim in shapes:
        for library in (*JITTED, *FUNCTIONS):
            asked = [{"library": library, "count": count, "dim": dim}]
            cells += harness.answers("benchmarks.fid", asked, limit)  # each in its own process
            print(cells[-1], file=sys.stderr)
    data = {"cells": cells}
    harness.write("fid", table(data), data)


def measured(cell: dict[str, Any]) -> dict[str, Any]:
    """Value, gradient, memory and error of one library."""
    library, arrays = cell["library"], features(cell["count"], cell["dim"])
    before, found = _peak(), {}
    if library in JITTED:
        on_device = [jax.device_put(z) for z in arrays]
        call = jax.jit(JITTED[library])
        result = float(call(*on_device))
        found["memory"] = _peak() - before
        found["value"] = milliseconds(call, on_device, SECONDS)
        found["gradient"] = milliseconds(jax.jit(jax.grad(JITTED[library])), on_device, SECONDS)
    else:
        wide = [z.astype(np.float64) for z in arrays]
        start = time.perf_counter()
        result = FUNCTIONS[library](*wide)
        found["value"] = 1e3 * (time.perf_counter() - start)
        found["memory"] = _peak() - before
    exact = _exact(*arrays)
    found["error"] = abs(result - exact) / exact
    return {k: float(f"{v:.{DIGITS}g}") for k, v in found.items()}


def features(count: int, dim: int) -> list[np.ndarray]:
    """Two sets whose variances fall off along some axes."""
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(dim) / (0.1 * dim))[:, None] / dim**0.5
    mixing = rng.standard_normal((dim, dim)) * decay
    sets = (rng.standard_normal((count, dim)) @ mixing + 0.01 * i for i in range(2))
    return [x.astype(np.float32) for x in sets]


def _ours(x: Any, y: Any) -> Any:
    def law(z: Any) -> gj.Gaussian:
        mean = jnp.mean(z, axis=0, keepdims=True)
        return gj.from_root(mean[0], (z - mean).T / (len(z) - 1) ** 0.5)

    return gj.frechet_distance(law(x), law(y))


def _by_hand(x: Any, y: Any) -> Any:
    (m, a), (n, b) = ((jnp.mean(z, axis=0), jnp.cov(z, rowvar=False)) for z in (x, y))
    r = symmetric_root(a)
    inner = jnp.matmul(jnp.matmul(r, b, precision="highest"), r, precision="highest")
    cross = jnp.sum(jnp.sqrt(jnp.linalg.eigvalsh(inner)))
    return jnp.sum((m - n) ** 2) + jnp.trace(a) + jnp.trace(b) - 2 * cross


def _moments(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    return x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)


def _by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """As pytorch-fid and clean-fid."""
    import scipy.linalg

    m, a, n, b = _moments(x, y)
    root = np.real(scipy.linalg.sqrtm(a @ b))
    return float(np.sum((m - n) ** 2) + np.trace(a) + np.trace(b) - 2 * np.trace(root))


def _by_torch(x: np.ndarray, y: np.ndarray) -> float:
    """As torchmetrics."""
    import torch  # pyright: ignore[reportMissingImports]

    m, a, n, b = (torch.from_numpy(z) for z in _moments(x, y))
    cross = torch.linalg.eigvals(a @ b).sqrt().real.sum()
    return float((m - n).square().sum() + a.trace() + b.trace() - 2 * cross)


def _by_pot(x: np.ndarray, y: np.ndarray) -> float:
    import ot  # pyright: ignore[reportMissingImports]

    m, a, n, b = _moments(x, y)
    return float(ot.gaussian.bures_wasserstein_distance(m, n, a, b)) ** 2


JITTED: dict[str, Callable[..., Any]] = {"gaussjax": _ours, "jax by hand": _by_hand}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "scipy sqrtm": _by_scipy,
    "torch eigvals": _by_torch,
    "POT": _by_pot,
}


def _exact(x: np.ndarray, y: np.ndarray) -> float:
    m, n = (z.mean(0, dtype=np.float64) for z in (x, y))
    f, g = ((z - z.mean(0, dtype=np.float64)) / (len(z) - 1) ** 0.5 for z in (x, y))
    if len(x) > x.shape[1]:
        f, g = (np.linalg.qr(z, mode="r") for z in (f, g))
    cross = np.linalg.svd(f @ g.T, compute_uv=False).sum()
    return float(np.sum((m - n) ** 2) + np.sum(f**2) + np.sum(g**2) - 2 * cross)


def _peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(data: dict[str, Any]) -> str:
    """A library a row."""
    forms = {"value": ",.0f", "gradient": ",.0f", "memory": ",.0f", "error": ".0e"}
    rows = []
    for c in data["cells"]:
        if "failed" in c:
            entries = [c["failed"], *[""] * (len(forms) - 1)]
        else:
            shown = [format(c[k], form) if k in c else "–" for k, form in forms.items()]
            entries = [x.replace("nan", "NaN") for x in shown]
        rows.append([f"{c['count']:,} × {c['dim']:,}", c["library"], *entries])
    return harness.table(["n × d", "", "value, ms", "gradient, ms", "memory, MB", "error"], rows)


if __name__ == "__main__":
    tyro.cli(main)
