"""A policy whose actions are bounded: a Gaussian through tanh, and a trust region in two parts.

An action a = tanh(u), u ~ N(μ(s), Σ(s)), stays in (−1, 1)ᵈ. Its density is

    log π(a|s) = log N(u; μ, Σ) − Σᵢ log(1 − tanh² uᵢ).

From a alone it cannot be computed where it matters: beyond |u| = 9 float32 rounds tanh u to ±1, and
artanh a is infinite. So draw the sample and its density together, while u is still known, as
distrax's `Transformed` does (in NumPyro: `sample_with_intermediates`, and the `log_prob` of both);
log(1 − tanh² u) = 2 (log 2 − u − log(1 + e⁻²ᵘ)) never overflows.

An update stays close to the last policy, separately in μ and in Σ (decoupled, as in MPO). For two
Gaussians that share one part, the KL divergence is that of the other part,

    KL(N(μ₀, Σ₀) ‖ N(μ, Σ₀)) ≤ ε_μ        KL(N(μ₀, Σ₀) ‖ N(μ₀, Σ)) ≤ ε_Σ.

One bound for both would let the variance collapse to pay for a step of the mean. `gj.decoupled_kl`
keeps its digits between nearly equal policies, where a trust region lives. Here a policy that is
linear in s learns to push towards a target, with an entropy bonus:

    python -m examples.policy --help

Source: Haarnoja et al., arXiv:1801.01290, appendix C; Abdolmaleki et al., arXiv:1806.06920, §4.2.
"""

from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import optax
import tyro
from jaxtyping import Array, Float

import gaussjax as gj
from gaussjax import parametrize
from gaussjax.adapters.distrax import to_distrax

DIM = 2  # of states and of actions
MAP = jnp.array([[1.5, 1.0], [-1.0, 1.5]])  # the best action is tanh of this times the state
WEIGHTS = jnp.array([[6.0, 5.0], [5.0, 6.0]])  # of errors: the best noise is correlated
BONUS = 0.05  # of a nat of entropy
SCALES = parametrize.Bounded(1e-2, 1e1)


class Params(NamedTuple):
    """Weights of the head, of a state and a one."""

    weights: Float[Array, "n m"]


class Report(NamedTuple):
    """For each iteration: mean reward with the bonus, and both divergences from the last policy."""

    rewards: Float[Array, " t"]
    mean_parts: Float[Array, " t"]
    covariance_parts: Float[Array, " t"]
    params: Params


def latent(params: Params, states: Float[Array, "n s"]) -> gj.Gaussian:
    """The law of u for each state."""
    features = jnp.concatenate([states, jnp.ones_like(states[:, :1])], axis=1)
    return parametrize.gaussian_from_vector(features @ params.weights, DIM, diagonal=SCALES)


def squashed(g: gj.Gaussian) -> distrax.Transformed:
    """The law of tanh(u)."""
    return distrax.Transformed(to_distrax(g), distrax.Block(distrax.Tanh(), 1))


def reward(states: Float[Array, "n s"], actions: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Minus the weighted squared distance from the best action."""
    error = actions - jnp.tanh(states @ MAP.T)
    return -0.5 * jnp.einsum("ni,ij,nj->n", error, WEIGHTS, error)


def gain(key: Array, params: Params, states: Float[Array, "n s"]) -> Float[Array, ""]:
    """Mean reward and entropy bonus, from one reparameterised action per state."""
    actions, log_prob = squashed(latent(params, states)).sample_and_log_prob(seed=key)
    return jnp.mean(reward(states, actions) - BONUS * log_prob)


def main(
    iterations: int = 60,
    steps: int = 10,
    batch: int = 256,
    mean_bound: float = 0.05,
    covariance_bound: float = 0.01,
    seed: int = 0,
) -> Report:
    """Trains a policy and prints how it does.

    Args:
        iterations: Policies, each in a trust region around the last.
        steps: Gradient steps in one trust region.
        batch: States in a step.
        mean_bound: The largest divergence of the means, ε_μ.
        covariance_bound: That of the covariances, ε_Σ.
        seed: Of the states and actions.
    """
    bounds = jnp.array([mean_bound, covariance_bound])
    optimizer, dual_optimizer = optax.adam(0.02), optax.adam(0.1)

    def loss(params: Params, prices: Array, key: Array, old: Params, states: Array) -> Array:
        """Lagrangian of the constrained gain, negated for the prices."""
        found = gj.decoupled_kl(latent(old, states), latent(params, states))
        excess = jnp.stack([jnp.mean(x) for x in found]) - bounds
        price = jnp.exp(prices)
        fixed = jax.lax.stop_gradient
        return (
            jnp.sum(fixed(price) * excess)
            - jnp.sum(price * fixed(excess))
            - gain(key, params, states)
        )

    @jax.jit
    def improve(carry: tuple[Any, ...], key: Array) -> tuple[Any, Any]:
        old = carry[0]

        def step(state: tuple[Any, ...], key: Array) -> tuple[Any, None]:
            params, moments, prices, dual_moments = state
            of_states, of_actions = jax.random.split(key)
            states = jax.random.uniform(of_states, (batch, DIM), minval=-1, maxval=1)
            slopes = jax.grad(loss, (0, 1))(params, prices, of_actions, old, states)
            updates, moments = optimizer.update(slopes[0], moments)
            changes, dual_moments = dual_optimizer.update(slopes[1], dual_moments)
            params = optax.apply_updates(params, updates)
            prices = optax.apply_updates(prices, changes)
            return (params, moments, prices, dual_moments), None

        state, _ = jax.lax.scan(step, carry, jax.random.split(key, steps))
        states = jax.random.uniform(key, (batch, DIM), minval=-1, maxval=1)
        found = gj.decoupled_kl(latent(old, states), latent(state[0], states))
        value = gain(key, state[0], states)
        return state, (value, *(jnp.mean(x) for x in found))

    start = Params(jnp.zeros((DIM + 1, parametrize.gaussian_size(DIM))))
    prices = jnp.full(2, 3.0)  # logarithms: cautious at first
    carry = (start, optimizer.init(start), prices, dual_optimizer.init(prices))
    keys = jax.random.split(jax.random.key(seed), iterations)
    found: Any = jax.lax.scan(improve, carry, keys)
    (params, *_), (rewards, of_means, of_covariances) = found

    every = max(iterations // 6, 1)
    print("iteration   reward + bonus   KL of means   KL of covariances")
    for i in range(0, iterations, every):
        print(f"{i:9d} {rewards[i]:16.3f} {of_means[i]:13.4f} {of_covariances[i]:19.4f}")
    return Report(rewards, of_means, of_covariances, params)


if __name__ == "__main__":
    tyro.cli(main)
