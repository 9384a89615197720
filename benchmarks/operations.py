"""What is measured: operations, their arguments, and the sizes of a sweep.

A measure is an operation or its gradient: `kl` is the value, `kl_gradient` the derivative of Σ KL
in all arguments. For an operation that returns arrays x instead of one number per Gaussian it is
the derivative of ½‖x‖².
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

ARGUMENTS = {
    "log_prob": ("mean", "lower", "x"),
    "likelihood": ("shared_mean", "shared_lower", "x"),
    "kl": ("mean", "lower", "other_mean", "other_lower"),
    "entropy": ("mean", "lower"),
    "sample": ("mean", "lower"),  # and a key
    "condition": ("mean", "lower", "given"),  # every other coordinate, from the first on
    "observe": ("mean", "lower", "design", "noise_scale", "given"),
    "cholesky": ("matrix",),
    "solve": ("lower", "x"),
    "color": ("mean", "lower", "x"),  # a sample for given noise: what can be checked
}
# One for the whole batch, as in a Kalman filter, or where a Gaussian is fitted to points.
SHARED = ("design", "noise_scale", "shared_mean", "shared_lower")
TITLES = {
    "log_prob": "`log_prob`, one x per Gaussian",
    "likelihood": "`log_prob` of B points, one Gaussian",
    "kl": "`kl_divergence`",
    "entropy": "`entropy`",
    "sample": "`sample`, one per Gaussian",
    "condition": "`condition` on every other coordinate: mean and factor",
    "observe": "`observe` d/2 linear combinations: mean and factor",
    "cholesky": "`linalg.cholesky`",
    "solve": "`linalg.solve_lower`, one vector per factor",
}
NUMBERS = ("log_prob", "likelihood", "kl", "entropy")  # one for each Gaussian
OPERATIONS = tuple(TITLES)
MEASURES = tuple(x + suffix for x in OPERATIONS for suffix in ("", "_gradient"))

WORK = 6_400_000  # B d² of the sweep over d
DIMS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024)
COARSE = (2, 4, 8, 16, 64, 256, 1024)
BATCH_DIM = 8
BATCHES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
SINGLE_DIMS = (256, 512, 1024, 2048, 4096)
DISTINCT = 4096
SWEEPS = ("single", "batch", "dim", "float64")


@dataclasses.dataclass(frozen=True)
class Row:
    """A request to all libraries in turn. `batch` is None for a single Gaussian."""

    sweep: str
    measure: str
    batch: int | None
    dim: int
    dtype: str = "float32"

    @property
    def size(self) -> str:
        return f"{self.dim}" if self.batch is None else f"{self.batch:,} × {self.dim}"


def rows(
    sweeps: Sequence[str], measures: Sequence[str], dims: Sequence[int] | None, work: int = WORK
) -> Iterator[Row]:
    """The rows to measure, the coarse part of each sweep before the rest of any.

    So tables and curves cover the whole range, however little time there is.
    """
    planned = [row for sweep in sweeps for row in _sweep(sweep, work)]
    asked = [x for x in planned if x.measure in measures and (dims is None or x.dim in dims)]
    yield from (row for row in asked if _is_coarse(row))
    yield from (row for row in asked if not _is_coarse(row))


def inputs(measure: str, batch: int | None, dim: int, dtype: str) -> list[np.ndarray]:
    """Arrays that are the same in every process, for an even `dim`.

    Large batches repeat some Gaussians: drawing all would take longer than measuring.
    """
    rng = np.random.default_rng(0)
    many = () if batch is None else (min(batch, DISTINCT),)
    found = []
    for name in ARGUMENTS[operation_of(measure)]:
        array = _argument(rng, name, many, dim).astype(dtype)
        single = batch is None or name in SHARED
        found.append(array if single else np.resize(array, (batch, *array.shape[1:])))
    return found


def operation_of(measure: str) -> str:
    return measure.removesuffix("_gradient")


def is_gradient(measure: str) -> bool:
    return measure.endswith("_gradient")


def _sweep(sweep: str, work: int) -> Iterator[Row]:
    if sweep == "single":
        for operation in ("log_prob", "kl", "cholesky"):
            for measure in (operation, f"{operation}_gradient"):
                yield from (Row(sweep, measure, None, dim) for dim in SINGLE_DIMS)
    elif sweep == "batch":
        for measure in ("log_prob", "kl", "kl_gradient", "sample"):
            yield from (Row(sweep, measure, batch, BATCH_DIM) for batch in BATCHES)
    else:
        dtype = "float64" if sweep == "float64" else "float32"
        for measure in MEASURES:
            yield from (Row(sweep, measure, max(1, work // dim**2), dim, dtype) for dim in DIMS)


def _is_coarse(row: Row) -> bool:
    return {
        "single": row.dim <= 1024,
        "batch": row.batch in BATCHES[::2],
        "dim": row.dim in COARSE,
        "float64": False,
    }[row.sweep]


def _argument(rng: np.random.Generator, name: str, many: tuple[int, ...], dim: int) -> np.ndarray:
    if name.startswith("shared_"):
        return _argument(rng, name.removeprefix("shared_"), (), dim)
    if name in ("lower", "other_lower"):
        return _factor(rng, many, dim)
    if name == "matrix":
        lower = _factor(rng, many, dim)
        return lower @ np.swapaxes(lower, -1, -2)
    if name == "design":
        return rng.normal(size=(dim // 2, dim)) / np.sqrt(dim)
    if name == "noise_scale":
        return np.exp(0.3 * rng.normal(size=dim // 2))
    return rng.normal(size=(*many, dim // 2 if name == "given" else dim))


def _factor(rng: np.random.Generator, many: tuple[int, ...], dim: int) -> np.ndarray:
    lower = np.tril(rng.normal(size=(*many, dim, dim)), -1) * 0.5 / np.sqrt(dim)
    return lower + np.eye(dim) * np.exp(0.3 * rng.normal(size=(*many, 1, dim)))
