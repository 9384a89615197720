"""Reference runs on MNIST: the same network and epochs, one choice after the other.

Each run is resumed where it stopped, and skipped once its results are there. Checkpoints stay in
`--runs`; the configuration, the numbers and small pictures go to `--results`, with a table beside
the one of Burda et al. (2015).

    python -m examples.vae.references --data-dir MNIST
    python -m examples.vae.references --data-dir MNIST --only diagonal full
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import tyro

from examples.vae import report
from examples.vae.__main__ import main as train
from examples.vae.config import Config
from examples.vae.objective import Evaluation

# The network of Burda et al., one stochastic layer of 50 and 200 hidden units; they train in
# batches of 20 with Adam. 5,000 samples take longer than many epochs, so they come last.
COMMON = Config(
    data="mnist",
    latents=50,
    hidden=200,
    epochs=100,
    batch_size=100,
    warmup_epochs=1,
    weight_decay=0.0,
    beta_epochs=1,
    eval_samples=50,
    final_samples=5000,
)
FIRST = {
    "diagonal": {"posterior": "diagonal"},
    "full": {"posterior": "full"},
    "low-rank": {"posterior": "low-rank"},
    "diagonal-learned-prior": {"posterior": "diagonal", "prior": "learned"},
    "full-learned-prior": {"posterior": "full", "prior": "learned"},
    "diagonal-iwae-5": {"posterior": "diagonal", "iwae_k": 5},
    "full-iwae-5": {"posterior": "full", "iwae_k": 5},
}
RUNS = FIRST | {
    f"{name}-seed-{seed}": FIRST[name] | {"seed": seed}
    for seed in (1, 2)
    for name in ("diagonal", "full")
}
PICTURES = ("samples.png", "curves.png", "latents.png", "interpolations.png")
NUMBERS = ("negative_elbo", "nll", "rate", "active_units")
BURDA = ("| VAE, Burda et al., 3,280 epochs | 1 | | 86.76 | | | | |",
         "| IWAE, k = 5, Burda et al., 3,280 epochs | 1 | | 85.54 | | | | |")  # fmt: skip


def main(
    data_dir: Path,
    only: tuple[str, ...] = tuple(RUNS),
    epochs: int = COMMON.epochs,
    runs: Path = Path("runs/references"),
    results: Path = Path("examples/vae/results"),
) -> None:
    """Trains what is not trained yet, in order, and writes the table.

    Args:
        data_dir: Folder of the four MNIST IDX files.
        only: Names of the runs; all if left out.
        epochs: Epochs of each run.
        runs: Folder of checkpoints and full metrics.
        results: Folder of configurations, numbers and pictures.
    """
    for name in only:
        if (results / name / "result.json").exists():
            continue
        config = configuration(name, data_dir, epochs, runs / name)
        print(f"{name}: {config.epochs} epochs in {config.out_dir}", flush=True)
        found = train(config)
        if found is None:  # stopped by Ctrl-C
            return
        keep(name, config, found, results)
        write_table(results)


def configuration(name: str, data_dir: Path, epochs: int, out_dir: Path) -> Config:
    """The configuration of a run."""
    if name not in RUNS:
        raise SystemExit(f"--only takes {', '.join(RUNS)}, got {name}.")
    more = {"data_dir": data_dir, "epochs": epochs, "out_dir": out_dir, "resume": True}
    return dataclasses.replace(COMMON, **RUNS[name], **more)


def keep(name: str, config: Config, found: Evaluation, results: Path) -> None:
    """Copies what is worth keeping: a few numbers and pictures."""
    folder = results / name
    folder.mkdir(parents=True, exist_ok=True)
    metrics = report.read_metrics(config.out_dir / "metrics.jsonl")
    for picture in PICTURES:
        shutil.copyfile(config.out_dir / picture, folder / picture)
    chosen = {key: str(x) if isinstance(x, Path) else x for key, x in vars(config).items()}
    for place in ("data_dir", "out_dir", "resume", "dry_run"):
        del chosen[place]
    tested = [row for row in metrics if "test_nll" in row]
    result = {
        **{key: round(float(getattr(found, key)), 3) for key in NUMBERS},
        "minutes": round(sum(row["seconds"] for row in metrics) / 60, 1),
        "cpu_minutes": round(sum(row["cpu_seconds"] for row in metrics) / 60, 1),
        "test_negative_elbo": {int(r["epoch"]): round(r["test_negative_elbo"], 2) for r in tested},
        "config": chosen,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def write_table(results: Path) -> None:
    """The table of all results that are there, seeds together, and what they say."""
    found: dict[str, list[dict]] = {}
    for name in RUNS:
        path = results / name / "result.json"
        if path.exists():
            found.setdefault(name.split("-seed-")[0], []).append(json.loads(path.read_text()))
    (results / "README.md").write_text(page(found))


def page(found: dict[str, list[dict]]) -> str:
    """Markdown: a row for each configuration, with the spread over its seeds."""
    epochs = sorted({row["config"]["epochs"] for rows in found.values() for row in rows})
    lines = [
        "MNIST, dynamically binarised, 60,000 training images, the 10,000 test images binarised",
        "once; 50 latents, two hidden layers of 200 (gelu), batches of 100, Adam with a cosine,",
        f"{' or '.join(map(str, epochs))} epochs. Nats per image; NLL by 5,000 importance samples.",
        "`python -m examples.vae.references --data-dir MNIST`",
        "",
        "| run | seeds | −ELBO | NLL | rate | active units | minutes to train | CPU minutes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(table_row(name, rows) for name, rows in found.items()),
        *BURDA,
        "",
        "Burda et al. (2015, table 1): tanh, batches of 20, Adam, 30 times as many epochs or more.",
        *difference(found),
    ]
    return "\n".join(lines) + "\n"


def table_row(name: str, rows: list[dict]) -> str:
    """Means over seeds, with the standard deviation where there are several."""
    entries = [name, str(len(rows))]
    columns = (*NUMBERS, "minutes", "cpu_minutes")
    for key, digits in zip(columns, (2, 2, 2, 0, 0, 0), strict=True):
        values = np.array([row[key] for row in rows])
        spread = f" ± {values.std(ddof=1):.{digits}f}" if len(rows) > 1 and digits else ""
        entries.append(f"{values.mean():.{digits}f}{spread}")
    return f"| {' | '.join(entries)} |"


def difference(found: dict[str, list[dict]]) -> list[str]:
    """What the full covariance brings over the diagonal, seed by seed."""
    if not {"diagonal", "full"} <= set(found):
        return []
    by_seed = [{row["config"]["seed"]: row for row in found[name]} for name in ("diagonal", "full")]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        return []
    pairs = [tuple(rows[seed] for rows in by_seed) for seed in seeds]
    words = []
    for key, label in (("negative_elbo", "−ELBO"), ("nll", "NLL")):
        gains = [a[key] - b[key] for a, b in pairs]
        words.append(f"{label} {', '.join(f'{gain:+.2f}' for gain in gains)}")
    return [
        "",
        f"Diagonal minus full, by seed: {'; '.join(words)}. Positive: the full covariance is",
        "better. With one seed a difference of a few tenths may be chance. Active units are",
        "counted by coordinate, and a full posterior spreads what it says over all of them.",
    ]


if __name__ == "__main__":
    tyro.cli(main)
