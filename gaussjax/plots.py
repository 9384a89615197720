"""Pictures of Gaussians with matplotlib: `pip install 'gaussjax[plots]'`. Nothing else imports it.

Each function draws one Gaussian, not a batch, and returns the axes.

>>> import matplotlib
>>> matplotlib.use("Agg")
>>> from gaussjax import from_scale
>>> ellipses(from_scale([0.0, 0.0], [1.0, 2.0])).get_xlabel()
'x₁'
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gaussjax import _errors
from gaussjax.estimation import confidence_region, correlation
from gaussjax.gaussian import Gaussian, log_prob, stddev
from gaussjax.transforms import condition, marginal

try:
    from matplotlib import pyplot
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as _error:
    raise ImportError("gaussjax.plots needs matplotlib: pip install 'gaussjax[plots]'.") from _error

POINTS = 200
"""Points of a curve."""
WIDTH = 3.5
"""Deviations that a curve shows on each side."""
LEVELS = (0.5, 0.95)


def ellipses(
    g: Gaussian,
    *,
    levels: Sequence[float] = LEVELS,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    **style: Any,
) -> Axes:
    """The ellipses that hold a two-dimensional Gaussian with these probabilities.

    `style` goes to `Axes.plot`.

    Raises:
        ValueError: g is not two-dimensional, or is a batch.

    >>> from gaussjax import standard
    >>> len(ellipses(standard(2), levels=(0.5, 0.9)).lines) >= 2
    True
    """
    _one(g, 2)
    ax = pyplot.subplots()[1] if ax is None else ax
    angles = np.linspace(0, 2 * np.pi, POINTS)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    style = {"color": "C0", **style}
    for level in sorted(levels):
        region = confidence_region(g, level=float(level))
        x, y = np.asarray(region.center)[:, None] + np.dot(region.axes, circle)
        ax.plot(x, y, **style)
    first, second = _names(labels, 2)
    ax.set_xlabel(first)
    ax.set_ylabel(second)
    return ax


def corner(
    g: Gaussian,
    *,
    samples: ArrayLike | None = None,
    given: Mapping[int, float] | None = None,
    labels: Sequence[str] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Figure:
    """All one- and two-dimensional marginals, as densities and ellipses in a triangle of axes.

    `samples` `(n, d)` are drawn underneath. With `given` (values of some coordinates, by index) the
    conditional law of the others is drawn on top, in a second colour.

    Raises:
        ValueError: g is a batch, or sizes differ.

    >>> from gaussjax import standard
    >>> len(corner(standard(3), given={0: 1.0}).axes)
    6
    """
    _one(g, g.dim)
    d, names = g.dim, _names(labels, g.dim)
    points = None if samples is None else np.asarray(samples)
    if points is not None and (points.ndim != 2 or points.shape[1] != d):
        raise ValueError(f"samples must have shape (n, {d}), got {points.shape}.")
    laws = [(g, list(range(d)), "C0")]
    if given:
        seen = _errors.indices(list(given), d)
        others = [i for i in range(d) if i not in seen]
        laws.append((condition(g, list(seen), jnp.array(list(given.values()))), others, "C1"))
    figure, axes = pyplot.subplots(d, d, figsize=(2 * d, 2 * d), sharex="col", squeeze=False)
    for i in range(d):
        for j in range(d):
            ax = axes[i, j]
            if j > i:
                ax.remove()
                continue
            if points is not None:
                _draw_samples(ax, points, i, j)
            for law, kept, colour in laws:
                if i in kept and j in kept:
                    _draw(ax, law, kept.index(i), kept.index(j), levels, colour)
            ax.set_xlabel(names[j] if i == d - 1 else "")
            ax.set_ylabel(names[i] if j == 0 and i > 0 else "")
    figure.tight_layout()
    return figure


def correlations(
    g: Gaussian, *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """The correlation matrix, from −1 in blue to 1 in red.

    Raises:
        ValueError: g is a batch.

    >>> from gaussjax import standard
    >>> len(correlations(standard(3)).images)
    1
    """
    _one(g, g.dim)
    ax = pyplot.subplots()[1] if ax is None else ax
    image = ax.imshow(np.asarray(correlation(g)), cmap="RdBu_r", vmin=-1, vmax=1)
    places, names = range(g.dim), _names(labels, g.dim)
    if labels is not None or g.dim <= 20:
        ax.set_xticks(places, names, rotation=90 if labels is not None else 0)
        ax.set_yticks(places, names)
    ax.figure.colorbar(image, ax=ax)
    return ax


def _draw(ax: Axes, g: Gaussian, i: int, j: int, levels: Sequence[float], colour: str) -> None:
    """One panel of a corner plot."""
    if i != j:
        ellipses(marginal(g, [j, i]), levels=levels, ax=ax, color=colour)
        return
    law = marginal(g, [i])
    spread, middle = float(stddev(law)[0]), float(law.mean[0])
    x = jnp.linspace(middle - WIDTH * spread, middle + WIDTH * spread, POINTS)
    ax.plot(x, np.exp(np.asarray(log_prob(law, x[:, None]))), color=colour)
    ax.set_yticks([])


def _draw_samples(ax: Axes, points: np.ndarray, i: int, j: int) -> None:
    if i == j:
        ax.hist(points[:, i], bins="auto", density=True, color="0.85")
    else:
        ax.plot(points[:, j], points[:, i], ".", markersize=2, color="0.7")


def _one(g: Gaussian, dim: int) -> None:
    _errors.instance("g", g, Gaussian)
    if g.batch_shape or g.dim != dim:
        raise ValueError(
            f"g must be one Gaussian of dimension {dim}, got dimension {g.dim} and batch shape "
            f"{g.batch_shape}: gaussjax.take and gaussjax.marginal give one."
        )


def _names(labels: Sequence[str] | None, d: int) -> list[str]:
    """Labels, or x₁, x₂, …"""
    if labels is None:
        return [f"x{''.join('₀₁₂₃₄₅₆₇₈₉'[int(n)] for n in str(i))}" for i in range(1, d + 1)]
    if len(labels) != d:
        raise ValueError(f"labels must be {d}, one for each coordinate, got {len(labels)}.")
    return list(labels)
