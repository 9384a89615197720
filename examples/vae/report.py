"""What a run leaves behind: a table, metrics as JSON lines, and pictures."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import image
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import gaussjax as gj
from examples.vae.config import Config
from examples.vae.data import Dataset
from examples.vae.model import VAE
from examples.vae.objective import Evaluation


def append_metrics(path: Path, **values: Any) -> None:
    """Appends a line of metrics."""
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """All lines, except one that a crash cut short."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def drop_metrics_after(path: Path, epoch: int) -> None:
    """Drops the lines after the checkpoint that a run resumes from."""
    rows = [row for row in read_metrics(path) if row["epoch"] <= epoch]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def protocol(config: Config, data: Dataset) -> str:
    """The line that says how the numbers were obtained."""
    return (
        f"{data.protocol}; {config.posterior} posterior, {config.prior} prior, "
        f"{config.latents} latents, {config.epochs} epochs, seed {config.seed}; nats per image; "
        f"NLL by {config.samples_at_end:,} importance samples"
    )


def print_table(console: Console, result: Evaluation, config: Config, data: Dataset) -> None:
    """Test figures, with the protocol below."""
    table = Table(title="Test set")
    for heading in ("−ELBO", "NLL", "rate", "active units"):
        table.add_column(heading, justify="right")
    figures = (result.negative_elbo, result.nll, result.rate)
    units = f"{int(result.active_units)} of {config.latents}"
    table.add_row(*(f"{float(x):.2f}" for x in figures), units)
    console.print(table)
    console.print(protocol(config, data))


def save_pictures(folder: Path, model: VAE, data: Dataset, metrics: list[dict]) -> None:
    """Reconstructions, samples, interpolations, the latent map and the learning curves.

    And the manifold of a model with two latent dimensions.
    """
    key = jax.random.key(0)
    images = data.test[:12]
    z = gj.sample(key, model.posterior(jnp.asarray(images)))
    reconstructions = np.asarray(jax.nn.sigmoid(model.logits(z)))
    originals = images / data.trials
    _grid(folder / "reconstructions.png", [*originals, *reconstructions], 12, data.side)
    z = gj.sample(key, model.prior(), (60,))
    _decoded(folder / "samples.png", model, z, data.side)
    ends = gj.mean(model.posterior(jnp.asarray(images)))
    _decoded(folder / "interpolations.png", model, walks(ends[:6], ends[6:]), data.side)
    if model.config.latents == 2:
        _decoded(folder / "manifold.png", model, quantile_grid(), data.side)
    means = np.asarray(gj.mean(model.posterior(jnp.asarray(data.test))))
    _latent_map(folder / "latents.png", means, data.test_labels)
    _curves(folder / "curves.png", metrics)


def walks(starts: jax.Array, ends: jax.Array, steps: int = 12) -> jax.Array:
    """Points on the lines from each start to its end, `(lines · steps, d)`."""
    share = jnp.linspace(0.0, 1.0, steps)[:, None]
    return (starts[:, None] + share * (ends - starts)[:, None]).reshape(-1, starts.shape[-1])


def quantile_grid(steps: int = 12) -> jax.Array:
    """Points of the plane at even quantiles of N(0, I), row by row from the top."""
    levels = jax.scipy.special.ndtri(jnp.linspace(0.02, 0.98, steps))
    return jnp.stack(jnp.meshgrid(levels, levels[::-1]), axis=-1).reshape(-1, 2)


def _decoded(path: Path, model: VAE, z: jax.Array, side: int) -> None:
    _grid(path, np.asarray(jax.nn.sigmoid(model.logits(z))), 12, side)


def _grid(path: Path, images: Any, columns: int, side: int) -> None:
    rows = [np.reshape(x, (side, side)) for x in images]
    padded = np.pad(np.stack(rows), ((0, 0), (1, 1), (1, 1)))
    tall = padded.reshape(-1, columns, side + 2, side + 2).swapaxes(1, 2)
    picture = tall.reshape(-1, columns * (side + 2))
    scale = max(1, 32 // side)
    image.imsave(path, np.kron(1 - picture, np.ones((scale, scale))), cmap="gray")


def _latent_map(path: Path, means: np.ndarray, labels: np.ndarray) -> None:
    """Posterior means along their two main directions, a colour for each digit."""
    centred = means - means.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    x, y = (centred @ directions[:2].T).T
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    points = axes.scatter(x, y, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=12)
    figure.colorbar(points, ticks=range(10), label="digit")
    axes.set(xlabel="first principal direction", ylabel="second")
    axes.set_title("Posterior means of the test images")
    figure.savefig(path, dpi=120)


def _curves(path: Path, metrics: list[dict]) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in metrics]
    train = [row["distortion"] + row["rate"] for row in metrics]
    axes.plot(epochs, train, label="training −ELBO")
    for name, label in (("test_negative_elbo", "test −ELBO"), ("test_nll", "test NLL")):
        rows = [row for row in metrics if name in row]
        axes.plot([r["epoch"] for r in rows], [r[name] for r in rows], label=label)
    low, high = min(train, default=0.0), float(np.median(train or [1.0]))
    axes.set(xlabel="epoch", ylabel="nats per image", ylim=(low - 5, high + 25))
    axes.legend()
    figure.savefig(path, dpi=120)
