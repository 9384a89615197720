"""The KL divergence of two multivariate Gaussians: derived, computed and checked.

KL(p‖q) = E_p[log p(x) − log q(x)]. With p = N(μ₁, Σ₁) and q = N(μ₂, Σ₂) in k dimensions,

    log p − log q = ½ ( log|Σ₂|/|Σ₁| − (x−μ₁)ᵀΣ₁⁻¹(x−μ₁) + (x−μ₂)ᵀΣ₂⁻¹(x−μ₂) ).

Under p, E[(x−μ₁)(x−μ₁)ᵀ] = Σ₁, so the first quadratic is k on average and the second
tr(Σ₂⁻¹Σ₁) + (μ₂−μ₁)ᵀΣ₂⁻¹(μ₂−μ₁). Together, the textbook's formula:

    KL = ½ ( tr(Σ₂⁻¹Σ₁) + (μ₂−μ₁)ᵀΣ₂⁻¹(μ₂−μ₁) + log|Σ₂|/|Σ₁| − k ).

It is right, but useless in float32 when q is near p: the trace is nearly k, the logarithm nearly 0,
and rounding destroys the small difference of large numbers. A trust region or a converging
posterior lives exactly there. With Cholesky factors, E = L₂⁻¹(L₁ − L₂) and its diagonal r, the same
value is a sum of terms that are not negative, none of which cancels:

    KL = ½ ( Σᵢ rᵢ² + 2(rᵢ − log(1+rᵢ)) + ‖E below its diagonal‖² + ‖L₂⁻¹(μ₂−μ₁)‖² ).

This is what `gj.kl_divergence` computes. Both are compared with 60-digit arithmetic, and with
Monte Carlo.

    python -m examples.kl_divergence --help
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import tyro
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import gaussjax as gj

Factors = tuple[Float[Array, " k"], Float[Array, "k k"]]  # μ and the lower L of Σ = L Lᵀ

HEADER = ("distance", "exact", "textbook", "error", "gaussjax", "error")


class Row(NamedTuple):
    """KL(p‖q) at one distance between p and q, three times."""

    distance: float
    exact: float
    textbook: float
    stable: float

    @property
    def textbook_error(self) -> float:
        """Relative error of the textbook's formula in float32."""
        return abs(self.textbook - self.exact) / self.exact

    @property
    def stable_error(self) -> float:
        """Relative error of `gj.kl_divergence` in float32."""
        return abs(self.stable - self.exact) / self.exact


class MonteCarlo(NamedTuple):
    """An average of log p − log q over samples of p, its standard error, and the closed form."""

    estimate: float
    standard_error: float
    closed_form: float


class Findings(NamedTuple):
    """The errors as q → p, and the check by sampling."""

    rows: list[Row]
    monte_carlo: MonteCarlo


def main(
    out: Path = Path("runs/kl_divergence"), dim: int = 6, samples: int = 100_000, seed: int = 0
) -> Findings:
    """Compares two formulas in float32 with exact values as q → p, and with Monte Carlo.

    Args:
        out: Folder for the picture.
        dim: Number of dimensions k.
        samples: Points for Monte Carlo.
        seed: Seed of the Gaussians and of the points.
    """
    p_key, q_key, sample_key = jax.random.split(jax.random.key(seed), 3)
    p, other = random_factors(p_key, dim), random_factors(q_key, dim)

    rows = [compare(10.0**-i, p, towards(other, p, 10.0**-i)) for i in range(8)]
    print(f"KL(p‖q) in float32, {dim} dimensions, q at a relative distance from p\n")
    print(
        f"{'distance':>9} {'exact':>12} {'textbook':>12} {'error':>8} {'gaussjax':>12} {'error':>8}"
    )
    for row in rows:
        print(
            f"{row.distance:9.0e} {row.exact:12.5e} {row.textbook:12.5e} {row.textbook_error:8.0e}"
            f" {row.stable:12.5e} {row.stable_error:8.0e}"
        )

    near = gj.from_cholesky(*p), gj.from_cholesky(*towards(other, p, 0.3))
    checked = monte_carlo(sample_key, *near, samples)
    print(f"\nMonte Carlo: {checked.estimate:.4f} ± {checked.standard_error:.4f} from {samples:,}")
    print(f"closed form: {checked.closed_form:.4f}")

    plot(out, rows)
    return Findings(rows, checked)


def textbook_kl(p: Factors, q: Factors) -> Array:
    """½ (tr(Σ₂⁻¹Σ₁) + (μ₂−μ₁)ᵀΣ₂⁻¹(μ₂−μ₁) + log|Σ₂|/|Σ₁| − k), as most libraries compute it."""
    (mean_p, lower_p), (mean_q, lower_q) = p, q
    trace = jnp.sum(solve_triangular(lower_q, lower_p, lower=True) ** 2)
    quadratic = jnp.sum(solve_triangular(lower_q, mean_q - mean_p, lower=True) ** 2)
    log_ratio = 2 * jnp.sum(jnp.log(jnp.diagonal(lower_q)) - jnp.log(jnp.diagonal(lower_p)))
    return 0.5 * (trace + quadratic + log_ratio - len(mean_p))


def exact_kl(p: Factors, q: Factors) -> float:
    """The same formula from the float32 numbers in 60 digits, enough to lose some."""
    with mpmath.workdps(60):
        (mean_p, lower_p), (mean_q, lower_q) = map(exactly, p), map(exactly, q)
        inverse = mpmath.inverse(lower_q)
        ratio, shift = inverse * lower_p, inverse * (mean_q - mean_p)
        # The determinant of a triangle is the product of its diagonal.
        log_ratio = -2 * mpmath.log(mpmath.fprod(ratio[i, i] for i in range(ratio.rows)))
        squares = sum(x**2 for x in ratio) + sum(x**2 for x in shift)
        return float((squares + log_ratio - ratio.rows) / 2)


def exactly(array: Array) -> mpmath.matrix:
    """A float32 array's values, without rounding."""
    return mpmath.matrix(np.asarray(array, np.float64).tolist())


def compare(distance: float, p: Factors, q: Factors) -> Row:
    """Both float32 formulas beside the exact value."""
    stable = gj.kl_divergence(gj.from_cholesky(*p), gj.from_cholesky(*q))
    return Row(distance, exact_kl(p, q), float(textbook_kl(p, q)), float(stable))


def random_factors(key: Array, dim: int) -> Factors:
    """Mean and factor of a full-covariance Gaussian from a normal vector."""
    vector = 0.5 * jax.random.normal(key, (gj.parametrize.gaussian_size(dim),))
    return vector[:dim], gj.parametrize.lower_from_vector(vector[dim:])


def towards(q: Factors, p: Factors, distance: float) -> Factors:
    """The factors at `distance` of the way from p to q, entry by entry."""
    return jax.tree.map(lambda a, b: b + distance * (a - b), q, p)


def monte_carlo(key: Array, p: gj.Gaussian, q: gj.Gaussian, samples: int) -> MonteCarlo:
    """The definition, averaged over points of p."""
    x, log_p = gj.sample_and_log_prob(key, p, (samples,))
    ratio = log_p - gj.log_prob(q, x)
    standard_error = jnp.std(ratio) / samples**0.5
    return MonteCarlo(float(jnp.mean(ratio)), float(standard_error), float(gj.kl_divergence(p, q)))


def plot(out: Path, rows: list[Row]) -> None:
    """Relative error of both formulas as q → p."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    distance = [row.distance for row in rows]
    smallest = 1e-9  # an error of 0 has no logarithm
    axes.loglog(distance, [row.textbook_error for row in rows], "o-", label="textbook's trace form")
    axes.loglog(
        distance, [max(row.stable_error, smallest) for row in rows], "s-", label="gj.kl_divergence"
    )
    axes.axhline(1.0, color="gray", lw=0.8, ls=":")
    axes.invert_xaxis()
    axes.set(title="float32 KL(p‖q) as q → p", xlabel="relative distance", ylabel="relative error")
    axes.legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "error.png", dpi=120)
    print(f"\nPicture: {out / 'error.png'}")


if __name__ == "__main__":
    tyro.cli(main)
