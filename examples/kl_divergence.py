"""The KL divergence of two multivariate Gaussians: derived, checked, and computed in float32.

For p = N(μ₁, Σ₁) and q = N(μ₂, Σ₂) in k dimensions, log p(x) is −½(log|2πΣ₁| + ‖x − μ₁‖²_{Σ₁}),
with ‖v‖²_Σ = vᵀΣ⁻¹v, and likewise for q. So

    KL = E_p[log p(x) − log q(x)]
       = ½ (log|Σ₂| − log|Σ₁| − E_p‖x − μ₁‖²_{Σ₁} + E_p‖x − μ₂‖²_{Σ₂}).

A quadratic form is a trace, E_p[(x − m)ᵀA(x − m)] = tr(A Σ₁) + (μ₁ − m)ᵀA(μ₁ − m): the first
expectation is tr(I) = k, the second tr(Σ₂⁻¹Σ₁) + ‖μ₂ − μ₁‖²_{Σ₂}, and therefore

    KL = ½ (tr(Σ₂⁻¹Σ₁) + (μ₂ − μ₁)ᵀΣ₂⁻¹(μ₂ − μ₁) + log(|Σ₂| / |Σ₁|) − k).      (textbook)

Close to q = p the trace tends to k and the logarithm to 0 while their sum with −k is tiny: numbers
of size k are subtracted to leave one of size δ². In float32 nothing is left of it from δ ≈ 10⁻³ on.
From the factors Σ₁ = L Lᵀ and Σ₂ = K Kᵀ, with E = K⁻¹(L − K) and rᵢ = Eᵢᵢ, the trace is
‖I + E‖² = k + 2Σrᵢ + ‖E‖², the log ratio is −2Σ log(1 + rᵢ), and k cancels on paper instead:

    KL = ½ (Σᵢ (rᵢ² + 2(rᵢ − log(1 + rᵢ))) + ‖strictly lower E‖² + ‖K⁻¹(μ₂ − μ₁)‖²).   (stable)

Every term is positive, or zero. This is `gaussjax.kl_divergence`.

Run it: `python -m examples.kl_divergence --help`
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import gaussjax as gj
from examples import _show

DIM = 6
SEPARATIONS = 10.0 ** -np.arange(0, 7.5, 0.5)


class Findings(NamedTuple):
    """What `main` measured; errors are relative, the largest over the pairs of each separation."""

    textbook: float
    stable: float
    monte_carlo: float
    standard_error: float
    textbook_errors: np.ndarray
    stable_errors: np.ndarray
    textbook_negative: np.ndarray  # share of pairs
    stable_negative: np.ndarray


def main(
    samples: int = 1_000_000, pairs: int = 200, seed: int = 0, out: Path = Path("runs/examples")
) -> Findings:
    """Compares closed form, stable form and Monte Carlo, then their errors as q approaches p.

    Args:
        samples: of the Monte Carlo estimate.
        pairs: of Gaussians for each distance between p and q.
        seed: of everything.
        out: folder for the figure.
    """
    sample_key, pair_key = jax.random.split(jax.random.key(seed))
    far = three_ways(sample_key, samples)
    near = approach(pair_key, pairs)
    plot(near, out)
    return Findings(*far, **near)


def textbook(p: gj.Gaussian, q: gj.Gaussian) -> jax.Array:
    """The textbook formula, as other libraries compute it from two factors."""
    lower_p, lower_q = gj.linalg.cholesky(gj.covariance(p)), gj.linalg.cholesky(gj.covariance(q))
    return textbook_from_factors(p.mean, lower_p, q.mean, lower_q)


def textbook_from_factors(
    mean_p: Float[Array, " d"],
    lower_p: Float[Array, "d d"],
    mean_q: Float[Array, " d"],
    lower_q: Float[Array, "d d"],
) -> Float[Array, ""]:
    """tr(Σ₂⁻¹Σ₁) as ‖K⁻¹L‖², which is how distrax, TFP and NumPyro have it."""
    both = jnp.column_stack([lower_p, mean_p - mean_q])
    solved = jax.scipy.linalg.solve_triangular(lower_q, both, lower=True)
    trace, quadratic = jnp.sum(solved[:, :-1] ** 2), jnp.sum(solved[:, -1] ** 2)
    logdet = 2 * jnp.sum(jnp.log(jnp.diag(lower_q)) - jnp.log(jnp.diag(lower_p)))
    return 0.5 * (trace + quadratic + logdet - len(mean_p))
