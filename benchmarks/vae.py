"""The VAE example: how fast it trains, and what a full-covariance posterior gains.

    python -m benchmarks.vae speed     # steps a second, beside two programs in Flax Linen
    python -m benchmarks.vae digits    # test −ELBO and NLL, full against diagonal, some seeds

The Linen programs are the same networks with a diagonal posterior, written as Flax's own VAE
example is: a step at a time from the host, minibatches from NumPy, Adam. One is left unjitted, as
that example is; one has `jax.jit` around its step. Ours also clips, decays weights and skips
gradients that are not finite.
"""

import dataclasses
import importlib.metadata
import math
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn
from flax.training.train_state import TrainState

from benchmarks import harness
from examples.vae.config import Config
from examples.vae.data import Dataset, load
from examples.vae.train import State, make_trainer

Contestant = Callable[[], int]  # runs for a while, and says how many steps it made


def speed(
    rounds: int = 9, epochs: int = 5, unjitted_steps: int = 5, name: str = "vae_speed"
) -> None:
    """Measures and writes `benchmarks/results/NAME.md` and `.json`.

    Args:
        rounds: Rounds, in each of which everyone runs once, in random order.
        epochs: Epochs a round of what is compiled.
        unjitted_steps: Steps a round of what is not.
        name: Name of the files.
    """
    config = Config()
    data = load("digits", None)
    steps = epochs * (len(data.train) // config.batch_size)
    contestants = {
        "this example, full covariance": ours(config, "full", data, epochs),
        "this example, diagonal": ours(config, "diagonal", data, epochs),
        "Flax Linen, diagonal, jitted step": linen(config, data, steps, jitted=True),
        "Flax Linen, diagonal, unjitted": linen(config, data, unjitted_steps, jitted=False),
    }
    for run in contestants.values():
        run()  # compiles
    rates: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds):
        for who in random.sample(list(contestants), len(contestants)):
            start = time.perf_counter()
            made = contestants[who]()
            rates[who].append(made / (time.perf_counter() - start))
    rows = []
    for who, values in rates.items():
        low, middle, high = statistics.quantiles(values, n=4)
        rows.append([who, f"{middle:,.0f}", f"{low:,.0f}…{high:,.0f}", f"{1e3 / middle:.2f}"])
    text = (
        f"Steps a second of {config.batch_size} images: median and quartiles of {rounds} rounds\n\n"
        + harness.table(["", "steps / s", "quartiles", "ms a step"], rows)
        + f"\nDigits 8×8, {config.latents} latents, two hidden layers of {config.hidden} in each "
        f"network, float32; {versions()}.\n"
        "`python -m benchmarks.vae speed`"
    )
    harness.write(name, text, {"rounds": rounds, "steps_per_second": rates})


def digits(seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Trains with the default settings; writes `benchmarks/results/vae_digits.md` and `.json`.

    Args:
        seeds: Seeds of the first parameters, the order of the data and the noise of training.
    """
    data = load("digits", None)
    results: dict[str, list[dict[str, float]]] = {"full": [], "diagonal": []}
    for seed in seeds:
        for posterior, found in results.items():
            config = Config(posterior=posterior, seed=seed)
            found.append(train_and_test(config, data))
            print(posterior, seed, found[-1], flush=True)
    rows = []
    for i, seed in enumerate(seeds):
        for posterior, found in results.items():
            rows.append([posterior, str(seed), *cells(found[i])])
    for posterior, found in results.items():
        mean = {name: statistics.fmean(x[name] for x in found) for name in found[0]}
        rows.append([f"**{posterior}**", "mean", *cells(mean)])
    text = (
        "Test figures in nats per image, and seconds of training (compiling included)\n\n"
        + harness.table(
            ["posterior", "seed", "−ELBO", "NLL", "rate", "active units", "seconds"], rows
        )
        + f"\n{differences(results)}\n\nProtocol: {data.protocol}; {config.latents} latents, "
        f"{config.prior} prior, {config.epochs} epochs, the last one is measured; NLL by "
        f"{config.eval_samples:,} importance samples; {versions()}.\n"
        "The settings are the example's defaults.\n"
        "`python -m benchmarks.vae digits`"
    )
    harness.write("vae_digits", text, {"seeds": seeds, "results": results})


def train_and_test(config: Config, data: Dataset) -> dict[str, float]:
    """The test figures of one trained model."""
    start = time.perf_counter()
    trainer = make_trainer(config, data)
    state = trainer.start()
    for _ in range(config.epochs):
        state, _ = trainer.epoch(state)
    jax.block_until_ready(state.params)
    seconds = time.perf_counter() - start
    result = trainer.evaluate(state)
    return {name: float(x) for name, x in result._asdict().items()} | {"seconds": seconds}


def cells(figures: dict[str, float]) -> list[str]:
    """Numbers of a row."""
    exact = [f"{figures[name]:.2f}" for name in ("negative_elbo", "nll", "rate")]
    return [*exact, f"{figures['active_units']:.0f}", f"{figures['seconds']:.0f}"]


def differences(results: dict[str, list[dict[str, float]]]) -> str:
    """What the full covariance gains, seed by seed."""
    sentences = []
    for name, title in (("negative_elbo", "−ELBO"), ("nll", "NLL")):
        pairs = zip(results["full"], results["diagonal"], strict=True)
        gains = [diagonal[name] - full[name] for full, diagonal in pairs]
        each = ", ".join(f"{gain:+.2f}" for gain in gains)
        sentences.append(f"diagonal − full in {title}: {statistics.fmean(gains):+.2f} ({each})")
    return "; ".join(sentences) + ". Positive: the full covariance is better."


def ours(
    config: Config, posterior: Literal["full", "diagonal"], data: Dataset, epochs: int
) -> Contestant:
    """Whole epochs, each one compiled scan."""
    trainer = make_trainer(dataclasses.replace(config, posterior=posterior), data)
    state: State = trainer.start()

    def run() -> int:
        nonlocal state
        for _ in range(epochs):
            state, _ = trainer.epoch(state)
        jax.block_until_ready(state.params)
        return epochs * (len(data.train) // config.batch_size)

    return run


class Encoder(nn.Module):
    latents: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.gelu(nn.Dense(self.hidden, name=f"fc{i}")(x))
        mean = nn.Dense(self.latents, name="mean")(x)
        logvar = nn.Dense(self.latents, name="logvar")(x)
        return mean, logvar


class Decoder(nn.Module):
    pixels: int
    hidden: int

    @nn.compact
    def __call__(self, z):
        for i in range(2):
            z = nn.gelu(nn.Dense(self.hidden, name=f"fc{i}")(z))
        return nn.Dense(self.pixels, name="logits")(z)


class LinenVAE(nn.Module):
    latents: int
    hidden: int
    pixels: int

    def setup(self):
        self.encoder = Encoder(self.latents, self.hidden)
        self.decoder = Decoder(self.pixels, self.hidden)

    def __call__(self, x, key):
        mean, logvar = self.encoder(x)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, logvar.shape)
        return self.decoder(z), mean, logvar


def linen(config: Config, data: Dataset, steps: int, *, jitted: bool) -> Contestant:
    """Single steps, each with a minibatch from NumPy."""
    model = LinenVAE(config.latents, config.hidden, data.train.shape[1])
    key, init_key, sample_key = jax.random.split(jax.random.key(config.seed), 3)
    variables = model.init(init_key, jnp.ones((1, data.train.shape[1])), sample_key)
    optimizer = optax.adam(config.learning_rate)
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=optimizer)
    step = partial(linen_step, trials=data.trials)
    step = jax.jit(step) if jitted else step
    rng = np.random.default_rng(config.seed)

    def run() -> int:
        nonlocal state, key
        for _ in range(steps):
            key, step_key = jax.random.split(key)
            rows = rng.integers(len(data.train), size=config.batch_size)
            state = step(state, data.train[rows], step_key)
        jax.block_until_ready(state.params)
        return steps

    return run


def linen_step(state: TrainState, counts: Any, key: jax.Array, *, trials: int) -> TrainState:
    """One update, as Flax's example has it, with the likelihood of these data."""
    log_ways = np.array([math.log(math.comb(trials, k)) for k in range(trials + 1)], np.float32)

    def loss(params):
        logits, mean, logvar = state.apply_fn({"params": params}, 2 * counts / trials - 1, key)
        cross = trials * optax.sigmoid_binary_cross_entropy(logits, counts / trials)
        cross = cross - jnp.asarray(log_ways)[jnp.asarray(counts, int)]
        kl = -0.5 * jnp.sum(1 + logvar - mean**2 - jnp.exp(logvar), axis=-1)
        return jnp.mean(jnp.sum(cross, axis=-1) + kl)

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def versions() -> str:
    """Versions that `harness` does not list."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("flax", "optax"))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"speed": speed, "digits": digits})
