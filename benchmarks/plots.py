"""Figures from measured cells: value solid, gradient dashed, floor dotted."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from benchmarks import harness
from benchmarks.cells import Data
from benchmarks.libraries import COPY
from benchmarks.operations import BATCH_DIM, OPERATIONS, is_gradient, operation_of

COLOURS = {
    "gaussjax": "#d62728",
    "jax by hand": "#222222",
    "distrax": "#1f77b4",
    "tfp": "#17becf",
    "numpyro": "#2ca02c",
    "torch": "#ff7f0e",
    "torch, one thread": "#ffbb78",
    "normals alone": "#9467bd",
    COPY: "#999999",
    "reading": "#999999",
}
PANELS = {
    "dim": ("d", "dim", OPERATIONS),
    "batch": ("B", "batch", ("log_prob", "kl", "sample")),
    "single": ("d", "dim", ("log_prob", "kl", "cholesky")),
}
HEADINGS = {
    "dim": "Time against d, with B·d² = {work:,}",
    "batch": f"Time against B, d = {BATCH_DIM}",
    "single": "One Gaussian alone",
}


def draw(name: str, data: Data) -> list[str]:
    """Draws what was measured, beside NAME.json; the files' names."""
    figures: list[str] = []
    for sweep, (label, axis, operations) in PANELS.items():
        found = [cell for cell in data["cells"] if cell["sweep"] == sweep and cell["median"]]
        present = [x for x in operations if any(operation_of(c["measure"]) == x for c in found)]
        if present:
            heading = HEADINGS[sweep].format(**data)
            panels = {x: [c for c in found if operation_of(c["measure"]) == x] for x in present}
            figures.append(_figure(f"{name}_{sweep}", heading, panels, axis, label))
    return figures


def draw_structures() -> list[str]:
    """Draws the low-rank part of what `benchmarks.structures` measured, if it did."""
    if not harness.path_of("structures", "json").exists():
        return []
    panels: dict[str, list[Data]] = {"KL": [], "its gradient": []}
    for cell in harness.load("structures").get("low_rank", []):
        panel = panels["its gradient" if cell["what"] == "gradient" else "KL"]
        panel.append({"measure": cell["what"], **cell})
        if "read" in cell:
            panel.append({**panel[-1], "library": "reading", "median": cell["read"]})
    heading = "Diagonal plus rank 8, one Gaussian alone"
    return [_figure("structures", heading, panels, "dim", "d")]


def _figure(name: str, heading: str, panels: dict[str, list[Data]], axis: str, label: str) -> str:
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    size = (3.2 * columns, 2.7 * lines + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax, (title, found) in zip(axes.flat, panels.items(), strict=False):
        _panel(ax, found, axis)
        ax.set(title=title, xlabel=label, yscale="log")
        if max((cell[axis] for cell in found), default=1) <= 4096:
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        else:
            ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    for ax in axes[:, 0]:
        ax.set_ylabel("ms")
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    drawn = {cell["library"] for found in panels.values() for cell in found}
    figure.suptitle(heading)
    figure.legend(handles=_legend(drawn), loc="outside lower center", ncols=5, frameon=False)
    path = harness.path_of(name, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path.name


def _panel(ax: Any, found: Sequence[Data], axis: str) -> None:
    curves: dict[tuple[str, str], list[Data]] = {}
    for cell in found:
        if cell["library"] in COLOURS and cell.get("median"):
            curves.setdefault((cell["library"], cell["measure"]), []).append(cell)
    for (library, measure), members in curves.items():
        if library == COPY and is_gradient(measure):
            continue  # one floor in a panel
        members.sort(key=lambda cell: cell[axis])
        ax.plot(
            [cell[axis] for cell in members],
            [1e3 * cell["median"] for cell in members],
            color=COLOURS[library],
            linestyle=_style(library, measure),
            linewidth=2 if library == "gaussjax" else 1,
            marker=".",
            markersize=4,
            zorder=3 if library == "gaussjax" else 2,
        )
    ax.grid(alpha=0.3)


def _style(library: str, measure: str) -> str:
    if library in (COPY, "reading"):
        return ":"
    return "--" if is_gradient(measure) or measure == "gradient" else "-"


def _legend(drawn: set[str]) -> list[Line2D]:
    libraries = [x for x in COLOURS if x in drawn]
    handles = [
        Line2D([], [], color=COLOURS[x], linestyle=_style(x, "value"), label=x) for x in libraries
    ]
    return [*handles, Line2D([], [], color="#222222", linestyle="--", label="gradient")]
