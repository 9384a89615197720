"""What does μ + Σ^{1/2} ⊙ ε mean?

A sample of N(μ, Σ) is a function of μ, Σ and noise ε ~ N(0, I), so that gradients pass through it.
Any C with C Cᵀ = Σ gives one, z = μ + C ε, because z is Gaussian with mean μ and covariance
C E[ε εᵀ] Cᵀ = Σ. How C is applied depends on Σ:

- **Σ diagonal.** The root is elementwise and so is the product, μ + √diag(Σ) ⊙ ε. That is what ⊙
  means where a network gives one σ for each coordinate.
- **Σ full.** The elementwise root of a matrix is not a root of it. The symmetric root Σ^{1/2} is
  one, the Cholesky factor L is another. They turn the same noise into different points of the same
  law.

One slip is common: z = μ + ε√σ for a *variance* σ². The root was already taken: it is μ + ε σ.

    python -m examples.reparameterization --help
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import gaussjax as gj

MEAN = jnp.array([1.0, -1.0])
COVARIANCE = jnp.array([[1.0, 0.5], [0.5, 2.0]])


class Law(NamedTuple):
    """Moments of points, and whether the points can come from N(μ, Σ)."""

    points: Float[Array, "n d"]
    covariance: Float[Array, "d d"]
    p_value: float


def main(
    out: Path = Path("runs/reparameterization"), samples: int = 20_000, seed: int = 0
) -> dict[str, Law]:
    """Draws with several roots of one covariance and tests whose law is right.

    Args:
        out: Folder for the picture.
        samples: Points drawn with each root.
        seed: Seed of the noise.
    """
    noise = jax.random.normal(jax.random.key(seed), (samples, 2))
    diagonal = gj.from_variance(MEAN, jnp.diagonal(COVARIANCE))
    full = gj.from_covariance(MEAN, COVARIANCE)

    # Diagonal: the product with the elementwise root is what `color` does.
    sigma = jnp.sqrt(jnp.diagonal(COVARIANCE))
    laws = {
        "diagonal, μ + σ ⊙ ε": law(diagonal, MEAN + sigma * noise),
        "diagonal, gj.color": law(diagonal, gj.color(diagonal, noise)),
        "the slip, μ + √σ ⊙ ε": law(diagonal, MEAN + jnp.sqrt(sigma) * noise),
        "full, symmetric Σ^{1/2}": law(full, gj.color_symmetric(full, noise)),
        "full, Cholesky L": law(full, gj.color(full, noise)),
        "elementwise √Σ": law(full, MEAN + noise @ jnp.sqrt(COVARIANCE)),
    }

    print(f"Σ = {COVARIANCE.tolist()}, its diagonal where it says so; {samples:,} points each\n")
    print(f"{'root':24} {'var 1':>7} {'var 2':>7} {'cov':>7} {'p-value':>9}")
    for name, (_, cov, p_value) in laws.items():
        print(f"{name:24} {cov[0, 0]:7.3f} {cov[1, 1]:7.3f} {cov[0, 1]:7.3f} {p_value:9.2g}")

    symmetric, cholesky = laws["full, symmetric Σ^{1/2}"], laws["full, Cholesky L"]
    apart = jnp.mean(jnp.linalg.norm(symmetric.points - cholesky.points, axis=-1))
    print(f"\nThe two roots of the full Σ put the same noise {apart:.2f} apart on average.")
    print(f"Through both, ∂E‖z‖²/∂μ = 2μ = {(2 * MEAN).tolist()}:")
    for color in (gj.color_symmetric, gj.color):
        gradient = gradient_of_mean(color, full, noise)
        print(f"  {color.__name__:16} [{gradient[0]:.2f}, {gradient[1]:.2f}]")

    plot(out, symmetric.points, cholesky.points)
    return laws


def law(g: gj.Gaussian, points: Float[Array, "n d"]) -> Law:
    """Likelihood-ratio test that the points are drawn from `g`.

    With N(x̄, S) fitted by maximum likelihood, 2n·KL(N(x̄, S) ‖ g) is the test statistic, and it is
    χ² with one degree of freedom for each free parameter of the fit (Wilks) when they are.
    """
    n, d = points.shape
    centred = points - jnp.mean(points, axis=0)
    fitted = gj.from_covariance(jnp.mean(points, axis=0), centred.T @ centred / n)
    statistic = 2 * n * gj.kl_divergence(fitted, g)
    p_value = jax.scipy.stats.chi2.sf(statistic, d + d * (d + 1) / 2)
    return Law(points, gj.covariance(fitted), float(p_value))


def gradient_of_mean(
    color: Callable[..., Array], g: gj.Gaussian, noise: Float[Array, "n d"]
) -> Float[Array, " d"]:
    """∂/∂μ of the average ‖z‖² over z = color(g, ε): the derivative passes through the samples."""
    return jax.grad(
        lambda mean: jnp.mean(jnp.sum(color(gj.Gaussian(mean, g.cov), noise) ** 2, axis=-1))
    )(g.mean)


def plot(out: Path, symmetric: Float[Array, "n d"], cholesky: Float[Array, "n d"]) -> None:
    """The same noise through both roots: matching points are joined."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    clouds, pairs = figure.subplots(1, 2, sharex=True, sharey=True)
    for points, label in ((symmetric, "symmetric Σ^{1/2}"), (cholesky, "Cholesky L")):
        clouds.plot(*np.asarray(points[:2000]).T, ".", ms=2, label=label)
        pairs.plot(*np.asarray(points[:30]).T, "o", ms=4, label=label)
    joined = np.stack([symmetric[:30], cholesky[:30]])
    pairs.plot(*np.moveaxis(joined, -1, 0), "-", color="gray", lw=0.8, zorder=0)
    clouds.set_title("The same distribution …")
    pairs.set_title("… and different samples of it")
    clouds.legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "roots.png", dpi=120)
    print(f"\nPicture: {out / 'roots.png'}")


if __name__ == "__main__":
    tyro.cli(main)
