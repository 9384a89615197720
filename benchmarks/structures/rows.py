"""Shared by the parts: measuring one row in its own process, and cells of tables."""

import contextlib
import ctypes
import itertools
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
Function = Callable[..., Any]
SECONDS = 1.0  # that the calls of a row should take
CALLS = 7  # at least, but one
SLOW = 5.0  # above so many seconds


def high_water(*, reset: bool = False) -> float:
    """Peak MB of this process since the last reset."""
    if reset:  # only Linux can reset the peak
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


def random_lower(rng: np.random.Generator, dim: int, *batch: int) -> np.ndarray:
    """Well conditioned factors with a positive diagonal, in float64."""
    lower = np.tril(rng.normal(size=(*batch, dim, dim)), -1) * 0.5 / np.sqrt(dim)
    return lower + np.eye(dim) * np.exp(0.3 * rng.normal(size=(*batch, 1, dim)))


def cells(row: Row, *columns: tuple[str, float, str]) -> list[str]:
    """Numbers in other units; if the first is missing, the error."""
    texts = []
    for key, unit, form in columns:
        value = row.get(key)
        missing = row.get("failed", "-") if key == "median" else "-"
        texts.append(missing if value is None else format(unit * value, form))
    return texts


def ratio(over: float | None, under: float | None) -> str:
    return f"{over / under:.1f}" if over and under else "-"


def combinations(**axes: tuple[Any, ...]) -> list[Row]:
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
