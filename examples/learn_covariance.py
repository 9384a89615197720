"""How can I learn a multivariate normal covariance?

Gradient descent needs an unconstrained vector, but a covariance must stay symmetric and positive
definite. So learn the entries of a Cholesky factor, with its diagonal through `exp`: every vector
gives a covariance, L Lᵀ, and every covariance has its vector.

From 1,024 points of N((1, −1), [[1, ½], [½, 2]]), in three ways:

- (a) least squares: pull the moments of the model towards those of the sample;
- (b) maximum likelihood: minimise the average of −log p(x);
- (c) the same in minibatches of 32.

All have the same optimum in closed form, the mean of the sample and its covariance (divided by n).

One slip is common: printing T Tᵀ for the *raw* triangle T of parameters. The learned covariance is
L Lᵀ with the exponential on L's diagonal. Both are shown.

    python -m examples.learn_covariance --help
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import gaussjax as gj

MEAN = jnp.array([1.0, -1.0])
COVARIANCE = jnp.array([[1.0, 0.5], [0.5, 2.0]])
DIM = 2

Points = Float[Array, "n d"]
Vector = Float[Array, " p"]
Loss = Callable[[Vector, Points], Array]


class Fit(NamedTuple):
    """A learned Gaussian, the vector that it was learned as, and the loss at every step."""

    gaussian: gj.Gaussian
    vector: Vector
    losses: Float[Array, " steps"]


class Findings(NamedTuple):
    """The sample, the closed-form answer, and each fit by its name."""

    points: Points
    closed_form: gj.Gaussian
    fits: dict[str, Fit]


def main(
    out: Path = Path("runs/learn_covariance"),
    points: int = 1024,
    steps: int = 1000,
    epochs: int = 200,
    batch: int = 32,
    seed: int = 0,
) -> Findings:
    """Learns a covariance in three ways and compares them with the closed form and the truth.

    Args:
        out: Folder for the picture.
        points: Size of the sample.
        steps: Steps of the two full-batch fits.
        epochs: Passes over the sample in minibatches.
        batch: Size of a minibatch.
        seed: Seed of the sample and of the order of minibatches.
    """
    sample_key, order_key = jax.random.split(jax.random.key(seed))
    truth = gj.from_covariance(MEAN, COVARIANCE)
    x = gj.sample(sample_key, truth, (points,))
    closed_form = maximum_likelihood(x)

    whole = jnp.broadcast_to(jnp.arange(points), (steps, points))
    shuffled = minibatches(order_key, points, batch, epochs)
    fits = {
        "(a) least squares": fit(squared_error, x, whole),
        "(b) maximum likelihood": fit(negative_log_likelihood, x, whole),
        f"(c) minibatches of {batch}": fit(negative_log_likelihood, x, shuffled),
    }

    report(truth, closed_form, fits)
    plot(out, x, truth, closed_form, fits)
    return Findings(x, closed_form, fits)


def maximum_likelihood(x: Points) -> gj.Gaussian:
    """Closed form: the sample's mean and covariance, the sum of squares divided by n."""
    mean = jnp.mean(x, axis=0)
    return gj.from_covariance(mean, (x - mean).T @ (x - mean) / len(x))


def model(vector: Vector) -> gj.Gaussian:
    """The Gaussian of a free vector: d entries of μ, d log Lᵢᵢ and the rest of L as it is."""
    return gj.parametrize.gaussian_from_vector(vector, DIM)


def squared_error(vector: Vector, x: Points) -> Array:
    """‖μ − x̄‖² + ‖Σ − S‖²: the distance between the model's moments and the sample's."""
    g, sample = model(vector), maximum_likelihood(x)
    return jnp.sum((g.mean - sample.mean) ** 2) + jnp.sum(
        (gj.covariance(g) - gj.covariance(sample)) ** 2
    )


def negative_log_likelihood(vector: Vector, x: Points) -> Array:
    """−log p(x), averaged over the points, in nats."""
    return -jnp.mean(gj.log_prob(model(vector), x))


@jax.jit(static_argnums=0)
def fit(loss: Loss, x: Points, batches: Array) -> Fit:
    """Adam, its rate decaying to zero, over one row of `batches` (indices of points) a step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, len(batches)))
    start = jnp.zeros(gj.parametrize.gaussian_size(DIM))

    def step(carry: tuple[Vector, optax.OptState], rows: Array):
        vector, state = carry
        value, gradient = jax.value_and_grad(loss)(vector, x[rows])
        update, state = optimizer.update(gradient, state)
        return (jnp.asarray(optax.apply_updates(vector, update)), state), value

    (vector, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), batches)
    return Fit(model(vector), vector, losses)


def minibatches(key: Array, points: int, batch: int, epochs: int) -> Array:
    """Indices of every minibatch, `(steps, batch)`: the points in a new order every epoch."""
    orders = jax.vmap(lambda k: jax.random.permutation(k, points))(jax.random.split(key, epochs))
    return orders[:, : points // batch * batch].reshape(-1, batch)


def raw_product(vector: Vector) -> Float[Array, "d d"]:
    """T Tᵀ for the triangle T of raw parameters: what is *not* the learned covariance."""
    triangle = gj.parametrize.vector_size(DIM)
    raw = jnp.zeros((DIM, DIM)).at[jnp.tril_indices(DIM)].set(vector[-triangle:])
    return raw @ raw.T


def report(truth: gj.Gaussian, closed_form: gj.Gaussian, fits: dict[str, Fit]) -> None:
    """One row per answer: its moments, and how far its covariance is from the closed form."""
    print(f"{'':28} {'mean':>16}   {'Σ₁₁':>7} {'Σ₂₁':>7} {'Σ₂₂':>7}   {'to closed form':>14}")
    best = gj.covariance(closed_form)
    rows = {"truth": truth, "closed form": closed_form}
    rows |= {name: found.gaussian for name, found in fits.items()}
    for name, g in rows.items():
        print_row(name, gj.covariance(g), best, np.asarray(gj.mean(g)))
    print("\nNot the covariance: the product T Tᵀ of the raw triangle of parameters")
    for name, found in fits.items():
        print_row(name, raw_product(found.vector), best)


def print_row(name: str, cov: Array, best: Array, mean: np.ndarray | None = None) -> None:
    """One line of the table."""
    moments = "" if mean is None else f"{mean[0]:8.4f}{mean[1]:8.4f}"
    apart = jnp.max(jnp.abs(cov - best))
    entries = f"{cov[0, 0]:7.4f} {cov[1, 0]:7.4f} {cov[1, 1]:7.4f}"
    print(f"{name:28} {moments:>16}   {entries}   {apart:14.1e}")


def plot(
    out: Path, x: Points, truth: gj.Gaussian, closed_form: gj.Gaussian, fits: dict[str, Fit]
) -> None:
    """The points with two-deviation ellipses, and how far each loss is from its end."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    cloud, curves = figure.subplots(1, 2)
    cloud.plot(*np.asarray(x).T, ".", color="lightgray", ms=3)
    angles = jnp.linspace(0, 2 * jnp.pi, 200)
    circle = 2 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    learned = {name: found.gaussian for name, found in fits.items()}
    styles = ("-", "--", "-", ":", "-.")
    everyone = {"truth": truth, "closed form": closed_form} | learned
    for style, (name, g) in zip(styles, everyone.items(), strict=True):
        cloud.plot(*np.asarray(gj.color(g, circle)).T, style, label=name)
    cloud.set_title("Two standard deviations")
    cloud.legend(fontsize="small")
    for name, found in fits.items():
        curves.plot(np.asarray(found.losses), label=name, lw=0.8)
    curves.set(title="Loss", xlabel="step", xscale="log")
    curves.legend(fontsize="small")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "covariance.png", dpi=120)
    print(f"\nPicture: {out / 'covariance.png'}")


if __name__ == "__main__":
    tyro.cli(main)
