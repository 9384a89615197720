"""Tables and figures of the examples."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows under a header; the first column names them."""
    out = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        out.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*(_text(cell) for cell in row))
    console = Console()
    console.print(out)
    console.print()


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Writes `folder/name` and says so. A `Figure` without pyplot needs no display."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    figure.savefig(path, dpi=150)
    print(f"Saved {path}\n")
    return path


def ellipse(axes: Axes, mean: np.ndarray, cov: np.ndarray, *line: str, **style: object) -> None:
    """Draws the points two standard deviations from the mean: μ + 2 L u for unit vectors u."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    x, y = mean[:, None] + 2 * np.linalg.cholesky(cov) @ circle
    axes.plot(x, y, *line, **style)


def _text(cell: object) -> str:
    if isinstance(cell, str):
        return cell
    values = np.asarray(cell)
    if values.ndim == 0:
        return f"{values:,}" if values.dtype.kind == "i" else f"{values:.4g}"
    return np.array2string(values, precision=4, suppress_small=True, floatmode="fixed")
