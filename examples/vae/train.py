"""Training as pure functions of the state: an epoch is one `scan` under one `jit`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from examples.vae import devices
from examples.vae.config import Config
from examples.vae.data import Dataset
from examples.vae.model import VAE
from examples.vae.objective import Evaluation, Terms, evaluate, training_loss


class State(NamedTuple):
    """Everything that a run needs to resume exactly."""

    params: nnx.State
    optimizer: optax.ApplyIfFiniteState
    key: Array  # key data, which a checkpoint can hold
    epoch: Array  # the position in the data: an epoch's order follows from the key


class EpochMetrics(NamedTuple):
    """Means over an epoch, in nats per image, and how many batches were skipped."""

    distortion: Array
    rate: Array
    skipped: Array
    consecutive_skipped: Array


class Trainer(NamedTuple):
    """The compiled functions of a run."""

    start: Callable[[], State]
    epoch: Callable[[State], tuple[State, EpochMetrics]]
    evaluate: Callable[..., Evaluation]  # of a state and, if others are wanted, a number of samples
    model: Callable[[State], VAE]


def make_trainer(config: Config, data: Dataset) -> Trainer:
    """Compiled training of that model on that data, which is put on the devices once.

    The functions are the same in every process, and all processes must call them alike; only the
    model is this process's own.
    """
    pixels = data.train.shape[1]
    model = VAE(config, pixels, data.trials, rngs=nnx.Rngs(config.seed))
    graph, params = nnx.split(model, nnx.Param)
    batches = len(data.train) // config.batch_size
    if batches == 0:
        raise SystemExit(f"--batch-size must be at most {len(data.train)}, the training images.")
    optimizer = make_optimizer(config, batches)
    train, test = jnp.asarray(data.train), jnp.asarray(data.test)
    shared, replicated = devices.batch_sharding(config), devices.replicated(config)

    def loss(params: Any, x: Array, key: Array, beta: Array):
        return training_loss(nnx.merge(graph, params), x, key, beta)

    def step(beta: Array, carry: tuple[Any, Any], batch: tuple[Array, Array]) -> tuple[Any, Terms]:
        params, optimizer_state = carry
        rows, key = batch
        draw_key, key = jax.random.split(key)
        x = jax.lax.with_sharding_constraint(train[rows], shared)
        x = binarise(draw_key, x) if data.dynamic else x
        gradient, terms = jax.grad(loss, has_aux=True)(params, x, key, beta)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), terms

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=replicated)
    def epoch(state: State) -> tuple[State, EpochMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch)
        order_key, batch_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(train))[: batches * config.batch_size]
        rows = order.reshape(batches, config.batch_size)
        keys = jax.random.split(batch_key, batches)
        beta = jnp.minimum(1.0, (state.epoch + 1) / max(config.beta_epochs, 1))
        carry = (state.params, state.optimizer)
        carry, terms = jax.lax.scan(functools.partial(step, beta), carry, (rows, keys))
        guard: Any = carry[1]
        metrics = EpochMetrics(
            jnp.mean(terms.distortion),
            jnp.mean(terms.rate),
            guard.total_notfinite - jnp.asarray(state.optimizer.total_notfinite),
            guard.notfinite_count,
        )
        return State(carry[0], guard, state.key, state.epoch + 1), metrics

    @functools.partial(jax.jit, static_argnums=1, out_shardings=replicated)
    def evaluation(state: State, samples: int = config.eval_samples) -> Evaluation:
        key = jax.random.key(0)  # the same noise for every run
        x = jax.lax.with_sharding_constraint(test, shared)
        x = binarise(key, x) if data.dynamic else x
        return evaluate(nnx.merge(graph, state.params), x, key, samples)

    def start() -> State:
        key = jax.random.key_data(jax.random.key(config.seed))
        guard: Any = optimizer.init(params)
        state = State(params, guard, key, jnp.zeros((), jnp.int32))
        return devices.on_each(config, state)  # copies: an epoch donates its state

    def model_of(state: State) -> VAE:
        return nnx.merge(graph, devices.on_one(state.params))

    return Trainer(start, epoch, evaluation, model_of)


def make_optimizer(config: Config, batches: int) -> optax.GradientTransformation:
    """AdamW with clipping, warm-up and cosine decay; skips steps with non-finite gradients."""
    warmup, total = config.warmup_epochs * batches, config.epochs * batches
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(warmup, total // 2), max(total, 1)
    )
    chain = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(rate, weight_decay=config.weight_decay),
    )
    # apply_if_finite gives up after so many errors; the run stops long before that
    return optax.apply_if_finite(chain, max_consecutive_errors=2**30)


def binarise(key: Array, intensities: Array) -> Array:
    """A binary image drawn from grey ones."""
    return jax.random.bernoulli(key, intensities).astype(intensities.dtype)
