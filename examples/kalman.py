"""A Kalman filter and smoother in thirty lines of Gaussians.

A point moves along a line with almost constant velocity. Its state x (position and velocity) is
hidden; at most steps we see a noisy position y:

    x₁ ~ prior,    xₜ₊₁ = F xₜ + wₜ,  wₜ ~ N(0, G Gᵀ),    yₜ = H xₜ + eₜ,  eₜ ~ N(0, R).

One random number a step pushes the velocity, and the position by half as much: G has one column,
and the law of w is singular.

Filtering finds the law of xₜ given y₁ … yₜ. It alternates two steps, each of them one Gaussian in
and one out: `observe` conditions on yₜ, and a law of F x + w is `convolve(affine(x, F), w)`. The
densities log p(yₜ | y₁ … yₜ₋₁) that `observe` returns add up to the log evidence log p(y₁ … yₙ).

A missing yₜ is NaN. The mask of `observe` says so: it is not read, and adds nothing.

Smoothing (Rauch, Tung & Striebel) finds the law of xₜ given all of y, backwards: `smooth_step`
takes the filtered law of xₜ and the smoothed one of xₜ₊₁.

The textbooks write both with differences, P − K S Kᵀ and P + G (P' − P'') Gᵀ, which lose digits and
can lose positive definiteness. Here every covariance is a Cholesky factor found by QR: nothing is
subtracted, and the Gaussian that `scan` carries has one structure from start to end.

Everything is checked against one dense Gaussian over all states and observations, and then run on a
chain of a hundred thousand steps.

    python -m examples.kalman --help
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gaussjax as gj

Observations = Float[Array, "n m"]


class Model(NamedTuple):
    """xₜ₊₁ = F xₜ + w and yₜ = H xₜ + e."""

    prior: gj.Gaussian
    transition: Float[Array, "d d"]  # F
    process: gj.Gaussian  # law of w
    emission: Float[Array, "m d"]  # H
    noise: gj.Gaussian  # law of e


class Answer(NamedTuple):
    """Laws of all xₜ, a batch of n, and the log evidence in nats."""

    states: gj.Gaussian
    log_evidence: Float[Array, ""]


class Dense(NamedTuple):
    """Means and variances of all xₜ, and the log evidence, from one dense Gaussian."""

    mean: Float[Array, "n d"]
    variance: Float[Array, "n d"]
    log_evidence: Float[Array, ""]


class Findings(NamedTuple):
    """The path, what was seen of it, and what was inferred in three ways."""

    model: Model
    path: Float[Array, "n d"]
    observations: Observations
    filtered: Answer
    smoothed: gj.Gaussian
    dense: Dense
    chain_error: float  # root mean square error of the smoothed position, in a long chain


def main(
    out: Path = Path("runs/kalman"),
    steps: int = 50,
    noise: float = 3.0,
    kick: float = 0.3,
    missing: float = 0.2,
    chain: int = 100_000,
    seed: int = 0,
) -> Findings:
    """Tracks a point along a line, and compares with one dense Gaussian.

    Args:
        out: Folder for the picture.
        steps: Number of observations.
        noise: Standard deviation of an observed position.
        kick: Standard deviation of what the velocity gains in a step.
        missing: Share of the positions that are not seen.
        chain: Number of steps of the long chain.
        seed: Seed of the path and of the observations.
    """
    model, key = constant_velocity(noise, kick), jax.random.key(seed)
    path, observations = draw(key, model, steps, missing)

    filtered = filter_forwards(model, observations)
    smoothed = smooth_backwards(model, filtered.states)
    exact = condition_densely(model, dense_joint(model, steps), observations)

    findings = Findings(
        model, path, observations, filtered, smoothed, exact, run_chain(key, model, chain, missing)
    )
    report(findings)
    plot(out, findings)
    return findings


def constant_velocity(noise: float, kick: float) -> Model:
    """A point under a constant push during each step, seen at times 1, 2, …"""
    return Model(
        prior=gj.from_cholesky(jnp.array([0.0, 1.0]), jnp.diag(jnp.array([5.0, 1.0]))),
        transition=jnp.array([[1.0, 1.0], [0.0, 1.0]]),
        process=gj.from_root(jnp.zeros(2), kick * jnp.array([[0.5], [1.0]])),
        emission=jnp.array([[1.0, 0.0]]),
        noise=gj.from_scale(jnp.zeros(1), noise),
    )


# The filter and the smoother --------------------------------------------------------------------


@jax.jit
def filter_forwards(model: Model, observations: Observations) -> Answer:
    """Law of each xₜ given y₁ … yₜ, and log p(y₁ … yₙ). O(n)"""

    def step(predicted: gj.Gaussian, y: Array) -> tuple[gj.Gaussian, gj.Posterior]:
        seen = gj.observe(predicted, model.emission, model.noise, y, mask=~jnp.isnan(y))
        return gj.convolve(gj.affine(seen.posterior, model.transition), model.process), seen

    _, seen = jax.lax.scan(step, model.prior, observations)
    return Answer(seen.posterior, jnp.sum(seen.log_evidence))


@jax.jit
def smooth_backwards(model: Model, filtered: gj.Gaussian) -> gj.Gaussian:
    """Law of each xₜ given all of y₁ … yₙ, from the laws that the filter found. O(n)"""

    def step(later: gj.Gaussian, now: gj.Gaussian) -> tuple[gj.Gaussian, gj.Gaussian]:
        smoothed = gj.smooth_step(now, model.transition, model.process, later)
        return smoothed, smoothed

    last = gj.take(filtered, slice(-1, None))
    _, others = jax.lax.scan(step, gj.take(last, 0), gj.take(filtered, slice(-1)), reverse=True)
    return jax.tree.map(lambda *laws: jnp.concatenate(laws), others, last)


# A path -----------------------------------------------------------------------------------------


@jax.jit(static_argnums=2)
def draw(
    key: Array, model: Model, steps: int, missing: float
) -> tuple[Float[Array, "n d"], Observations]:
    """A path and what is observed of it, NaN where nothing is."""

    def step(x: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
        of_x, of_y, of_holes = jax.random.split(key, 3)
        y = gj.sample(of_y, gj.shift(model.noise, model.emission @ x))
        y = jnp.where(jax.random.bernoulli(of_holes, missing), jnp.nan, y)
        return gj.sample(of_x, gj.shift(model.process, model.transition @ x)), (x, y)

    keys = jax.random.split(key, steps + 1)
    return jax.lax.scan(step, gj.sample(keys[0], model.prior), keys[1:])[1]


def run_chain(key: Array, model: Model, steps: int, missing: float) -> float:
    """Root mean square error of the smoothed position in a chain of that many steps."""
    path, observations = draw(key, model, steps, missing)
    smoothed = smooth_backwards(model, filter_forwards(model, observations).states)
    return float(jnp.sqrt(jnp.mean((smoothed.mean - path)[:, 0] ** 2)))


# The same, densely ------------------------------------------------------------------------------


@jax.jit(static_argnums=1)
def dense_joint(model: Model, steps: int) -> gj.Gaussian:
    """Law of (x₁, …, xₙ, y₁, …, yₙ), built by adding one state after the other. O(n³)"""
    d = model.prior.dim
    law = model.prior
    for _ in range(steps - 1):  # the next state depends on the last one of those before
        last = jnp.pad(model.transition, ((0, 0), (law.dim - d, 0)))
        law = gj.joint(law, last, model.process)
    noise = gj.concatenate([model.noise] * steps)
    return gj.joint(law, jnp.kron(jnp.eye(steps), model.emission), noise)


@jax.jit
def condition_densely(model: Model, everything: gj.Gaussian, observations: Observations) -> Dense:
    """Means and variances of all states given what is seen, and its log density. O(n³)"""
    states = states_of(model, everything)
    values = jnp.concatenate([jnp.zeros(states), observations.ravel()])
    seen = (jnp.arange(everything.dim) >= states) & ~jnp.isnan(values)
    law = gj.condition_where(everything, values, mask=seen)
    log_evidence = gj.log_prob_observed(everything, values, mask=seen)
    mean, variance = (x[:states].reshape(-1, model.prior.dim) for x in (law.mean, gj.variance(law)))
    return Dense(mean, variance, log_evidence)


def states_of(model: Model, everything: gj.Gaussian) -> int:
    """How many of the coordinates are those of states, which come first."""
    m, d = model.emission.shape
    return everything.dim // (m + d) * d


# What is printed and drawn ----------------------------------------------------------------------


def report(findings: Findings) -> None:
    """Errors of the three estimates of the path, and how far the dense answer is."""
    filtered, smoothed = findings.filtered.states, findings.smoothed
    print("Root mean square error of the position")
    for name, estimate in {
        "observed": findings.observations[:, 0],
        "filtered": gj.mean(filtered)[:, 0],
        "smoothed": gj.mean(smoothed)[:, 0],
    }.items():
        print(f"  {name:10} {jnp.sqrt(jnp.nanmean((estimate - findings.path[:, 0]) ** 2)):.4f}")
    log_evidence = findings.filtered.log_evidence
    print(
        f"\nLog evidence: filter {log_evidence:.4f}, dense {findings.dense.log_evidence:.4f} nats"
    )
    print("Largest difference to the dense Gaussian")
    for name, difference in {
        "means": gj.mean(smoothed) - findings.dense.mean,
        "variances": gj.variance(smoothed) - findings.dense.variance,
        "log evidence": log_evidence - findings.dense.log_evidence,
    }.items():
        print(f"  {name:13} {jnp.max(jnp.abs(difference)):.1e}")
    print("\nRoot mean square error of the smoothed position in the long chain")
    print(f"  {findings.chain_error:.4f}")


def plot(out: Path, findings: Findings) -> None:
    """Position and velocity: the truth, and two standard deviations around each estimate."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    times = np.arange(1, len(findings.path) + 1)
    axes[0].plot(times, findings.observations[:, 0], "x", color="gray", ms=4, label="observed")
    for i, (axis, title) in enumerate(zip(axes, ("Position", "Velocity"), strict=True)):
        axis.plot(times, findings.path[:, i], "k--", lw=1, label="truth")
        band(axis, times, findings.filtered.states, i, "filtered")
        band(axis, times, findings.smoothed, i, "smoothed")
        axis.set(title=title, xlabel="step")
    axes[0].legend(fontsize="small")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "track.png", dpi=120)
    print(f"\nPicture: {out / 'track.png'}")


def band(axis: Axes, times: np.ndarray, laws: gj.Gaussian, i: int, label: str) -> None:
    """Mean of coordinate i of a batch of Gaussians, and two standard deviations around it."""
    mean, spread = np.asarray(gj.mean(laws))[:, i], 2 * np.asarray(gj.stddev(laws))[:, i]
    (line,) = axis.plot(times, mean, label=label)
    axis.fill_between(times, mean - spread, mean + spread, color=line.get_color(), alpha=0.2, lw=0)


if __name__ == "__main__":
    tyro.cli(main)
