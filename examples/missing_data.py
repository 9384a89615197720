"""Maximum likelihood and imputation when entries are missing.

Each of 178 wines has 13 measurements, standardised. 30 % of the entries are removed at random, so
hardly a row is complete. Three ways to a mean μ and a full covariance Σ:

- *complete data*: the closed form, if nothing were missing;
- *mean imputation*: fill each gap with its column's mean, then pretend that it was measured;
- *maximum likelihood*: gradient descent on the average of −log p(observed entries of a row).

The observed entries of a row are Gaussian, with the matching entries of μ and Σ. Rows have
different holes, but the shapes of `gj.log_prob_observed` do not depend on the mask: one jitted call
takes them all, and missing entries have gradient zero. If values are missing at random, this
likelihood is right: why they are missing says nothing more (Little & Rubin).

The law of a row's missing entries given those observed then fills the gaps:

- its mean is the best guess (`gj.condition_where`);
- samples of it are *multiple imputations* (`gj.impute`): several whole tables, to be analysed as if
  measured. How much the answers differ between tables is what the gaps have cost.

By Rubin's rules the answers qⱼ ± √uⱼ from m tables have the mean q̄ and the variance ū + (1 + 1/m)
b, with b the variance of the qⱼ. Here the 104 parameters stay at their estimate from 178 rows,
which makes the imputations too confident: fewer than 90 % of the removed entries lie within the
middle 90 %. Rubin would draw the parameters too.

    python -m examples.missing_data --help
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Bool, Float
from matplotlib.figure import Figure
from sklearn.datasets import load_wine

import gaussjax as gj

Table = Float[Array, "n d"]
Mask = Bool[Array, "n d"]
Vector = Float[Array, " p"]


class Fit(NamedTuple):
    """A learned Gaussian, and the average of −log p(observed) at every step, in nats."""

    gaussian: gj.Gaussian
    losses: Float[Array, " steps"]


class Pooled(NamedTuple):
    """An estimate by Rubin's rules, and its standard error."""

    estimate: Float[Array, ""]
    error: Float[Array, ""]


class Findings(NamedTuple):
    """The table, its mask (True is observed), and the results."""

    table: Table
    mask: Mask
    fit: Fit
    guesses: dict[str, Table]
    divergences: dict[str, Array]
    imputed: Float[Array, "m n d"]
    coverage: Float[Array, ""]


def main(
    out: Path = Path("runs/missing_data"),
    missing: float = 0.3,
    steps: int = 500,
    imputations: int = 50,
    seed: int = 0,
) -> Findings:
    """Removes entries of a table, learns its covariance from the rest, and fills the gaps.

    Args:
        out: Folder for the picture.
        missing: Share of the entries that is removed.
        steps: Steps of gradient descent.
        imputations: Number of completed tables.
        seed: Seed of the removed entries and of the imputations.
    """
    mask_key, impute_key = jax.random.split(jax.random.key(seed))
    table, names = standardised_wine()
    mask = jax.random.bernoulli(mask_key, 1 - missing, table.shape)
    seen = jnp.where(mask, table, jnp.nan)  # everything below uses only this

    complete = maximum_likelihood(table)
    averaged = mean_imputation(seen)
    fit = learn(seen, mask, steps)
    guesses = {
        "mean imputation": averaged,
        "maximum likelihood": conditional_mean(fit.gaussian, seen, mask),
        "complete data": conditional_mean(complete, seen, mask),
    }
    divergences = {
        "mean imputation": gj.kl_divergence(complete, maximum_likelihood(averaged)),
        "maximum likelihood": gj.kl_divergence(complete, fit.gaussian),
    }
    imputed = gj.impute(impute_key, fit.gaussian, seen, mask=mask, shape=(imputations,))

    findings = Findings(
        table, mask, fit, guesses, divergences, imputed, coverage(imputed, table, mask)
    )
    report(findings, names)
    plot(out, findings)
    return findings


def standardised_wine() -> tuple[Table, list[str]]:
    """178 wines in 13 measurements, each of mean zero and variance one; and their names."""
    wine: Any = load_wine()
    x = wine.data
    return jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32), wine.feature_names


# Learning ---------------------------------------------------------------------------------------


def maximum_likelihood(x: Table) -> gj.Gaussian:
    """Closed form where nothing is missing: the sample's mean and covariance, divided by n."""
    mean = jnp.mean(x, axis=0)
    return gj.from_covariance(mean, (x - mean).T @ (x - mean) / len(x))


@jax.jit(static_argnums=2)
def learn(seen: Table, mask: Mask, steps: int) -> Fit:
    """Adam on a free vector from N(0, I), its rate decaying to zero."""
    d = seen.shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    start = jnp.zeros(gj.parametrize.gaussian_size(d))

    def loss(vector: Vector) -> Array:
        law = gj.parametrize.gaussian_from_vector(vector, d)
        return -jnp.mean(gj.log_prob_observed(law, seen, mask=mask))

    def step(carry: tuple[Vector, optax.OptState], _: None):
        vector, state = carry
        value, gradient = jax.value_and_grad(loss)(vector)
        update, state = optimizer.update(gradient, state)
        return (vector + jnp.asarray(update), state), value

    (vector, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return Fit(gj.parametrize.gaussian_from_vector(vector, d), losses)


# Filling the gaps -------------------------------------------------------------------------------


def mean_imputation(seen: Table) -> Table:
    """Every gap is its column's mean."""
    return jnp.where(jnp.isnan(seen), jnp.nanmean(seen, axis=0), seen)


@jax.jit
def conditional_mean(g: gj.Gaussian, seen: Table, mask: Mask) -> Table:
    """Every gap is its mean given what is observed of its row."""
    return gj.mean(gj.condition_where(g, seen, mask=mask))


def correlation(x: Table, i: int, j: int) -> Pooled:
    """Fisher's z = artanh(correlation) of two columns, which is about N(·, 1/(n − 3))."""
    r = jnp.corrcoef(x[:, i], x[:, j])[0, 1]
    return Pooled(jnp.arctanh(r), jnp.sqrt(1 / (len(x) - 3)))


def pool(answers: Pooled) -> Pooled:
    """Rubin's rules, for answers with an axis for imputations."""
    m = len(answers.estimate)
    within, between = jnp.mean(answers.error**2), jnp.var(answers.estimate, ddof=1)
    return Pooled(jnp.mean(answers.estimate), jnp.sqrt(within + (1 + 1 / m) * between))


def coverage(imputed: Float[Array, "m n d"], table: Table, mask: Mask) -> Array:
    """Share of the removed entries that lie within the middle 90 % of their imputations."""
    low, high = jnp.quantile(imputed, jnp.array([0.05, 0.95]), axis=0)
    inside = (low <= table) & (table <= high)
    return jnp.mean(inside, where=~mask)


def rmse(guess: Table, findings: Findings) -> Array:
    """Root mean square error of a guess at the removed entries, in standard deviations."""
    return jnp.sqrt(jnp.mean((guess - findings.table) ** 2, where=~findings.mask))


# What is printed and drawn ----------------------------------------------------------------------


def report(findings: Findings, names: list[str]) -> None:
    """Errors of the guesses, distances of the covariances, and one answer from all imputations."""
    gaps, rows = jnp.sum(~findings.mask), jnp.sum(jnp.all(findings.mask, axis=1))
    print(f"{gaps} of {findings.mask.size} entries removed; {rows} rows are whole")
    print(f"\n{'':20} {'RMSE of the gaps':>18} {'KL from complete data':>23}")
    for name, guess in findings.guesses.items():
        print(
            f"{name:20} {rmse(guess, findings):18.4f} {findings.divergences.get(name, 0.0):23.4f}"
        )
    share = findings.coverage
    print(f"\nThe middle 90 % of the imputations hold {100 * share:.1f} % of the removed entries")

    i, j = names.index("total_phenols"), names.index("flavanoids")
    answers = jax.vmap(lambda x: correlation(x, i, j))(findings.imputed)
    print(f"Correlation of {names[i]} and {names[j]}, as artanh ± standard error")
    for name, answer in {
        "complete data": correlation(findings.table, i, j),
        "mean imputation": correlation(findings.guesses["mean imputation"], i, j),
        "multiple imputation": pool(answers),
    }.items():
        print(f"  {name:20} {answer.estimate:.3f} ± {answer.error:.3f}")


def plot(out: Path, findings: Findings) -> None:
    """Removed entries against their imputations, and what learning did."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    scatter, curve = figure.subplots(1, 2)
    truth = np.asarray(findings.table)[~findings.mask]
    draws = np.asarray(findings.imputed)[:, ~findings.mask]
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    scatter.vlines(truth, low, high, color="C0", lw=0.4, alpha=0.5, label="90 % of imputations")
    for name, color in (("mean imputation", "gray"), ("maximum likelihood", "C1")):
        guess = np.asarray(findings.guesses[name])[~findings.mask]
        scatter.plot(truth, guess, ".", color=color, ms=3, label=name)
    scatter.axline((0.0, 0.0), slope=1.0, color="black", lw=0.7)
    scatter.set(xlabel="removed value", ylabel="filled in", title="Gaps")
    scatter.legend(fontsize="small")
    losses = np.asarray(findings.fit.losses)
    curve.plot(np.arange(1, len(losses) + 1), losses)
    curve.set(title="−log p(observed) a row, in nats", xlabel="step", xscale="log")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "imputation.png", dpi=120)
    print(f"\nPicture: {out / 'imputation.png'}")


if __name__ == "__main__":
    tyro.cli(main)
