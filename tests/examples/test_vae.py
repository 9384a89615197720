"""The VAE example: honest losses, exact resumption, and what happens when things break."""

import dataclasses
import gzip
import hashlib
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from examples.vae import checkpoint, data, objective, references, report
from examples.vae.__main__ import main
from examples.vae.config import Config
from examples.vae.train import make_trainer

ROOT = Path(__file__).parents[2]
TINY = Config(
    epochs=4, eval_every=2, batch_size=256, hidden=16, latents=3, eval_samples=50, warmup_epochs=1
)


def fresh_params():
    return make_trainer(TINY, data.digits()).start().params


def leaves(state):
    return [np.asarray(x) for x in jax.tree.leaves(state._asdict())]


def run_in(folder: Path, **changes) -> Config:
    config = dataclasses.replace(TINY, out_dir=folder, **changes)
    main(config)
    return config


def newest(config: Config):
    trainer = make_trainer(config, data.digits())
    return checkpoint.load_newest(config.out_dir / "checkpoints", trainer.start())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Config:
    """A run from start to end."""
    return run_in(tmp_path_factory.mktemp("run"))


def test_a_run_leaves_numbers_pictures_and_checkpoints(finished):
    names = {path.name for path in finished.out_dir.iterdir()}
    pictures = {"reconstructions.png", "samples.png", "latents.png", "curves.png"}
    pictures |= {"interpolations.png"}
    assert pictures | {"config.json", "metrics.jsonl", "checkpoints"} <= names
    rows = report.read_metrics(finished.out_dir / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    losses = [row["distortion"] + row["rate"] for row in rows]
    assert losses[-1] < losses[0]
    assert rows[-1]["test_nll"] <= rows[-1]["test_negative_elbo"]


def test_reference_runs_keep_their_numbers_and_are_not_repeated(tmp_path, monkeypatch, capsys):
    common = dataclasses.replace(TINY, final_samples=20)
    monkeypatch.setattr(references, "COMMON", common)
    folders = {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    for _ in range(2):
        references.main(Path("none"), ("diagonal",), 2, **folders)
    assert capsys.readouterr().out.count("diagonal: 2 epochs") == 1
    kept = {path.name for path in (folders["results"] / "diagonal").iterdir()}
    assert kept == {"result.json", *references.PICTURES}
    assert "| diagonal | 1 |" in (folders["results"] / "README.md").read_text()


def test_the_table_of_references_compares_the_same_seeds():
    def result(seed, bound, nll):
        config = {"epochs": 100, "seed": seed}
        numbers = {"rate": 25.0, "active_units": 20, "minutes": 5.0, "cpu_minutes": 9.0}
        return numbers | {"config": config, "negative_elbo": bound, "nll": nll}

    rows = {
        "diagonal": [result(0, 93.0, 90.0), result(1, 94.0, 91.0)],
        "full": [result(1, 92.0, 90.0), result(0, 91.5, 89.5), result(2, 90.0, 88.0)],
    }
    page = references.page(rows)
    assert "| diagonal | 2 | 93.50 ± 0.71 | 90.50 ± 0.71 |" in page
    assert "−ELBO +1.50, +2.00; NLL +0.50, +1.00" in page
    assert "86.76" in page


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, capsys):
    run_in(tmp_path / "run", dry_run=True)
    said = " ".join(capsys.readouterr().out.split())
    parameters = sum(x.size for x in jax.tree.leaves(fresh_params()))
    assert f"{parameters:,} parameters; {len(data.digits().train) // 256} steps an epoch" in said
    assert "minutes for all" in said
    assert not (tmp_path / "run").exists()


def test_walks_go_from_each_start_to_its_end():
    starts, ends = np.zeros((2, 3)), np.ones((2, 3)) * [[1.0], [2.0]]
    lines = np.asarray(report.walks(starts, ends, steps=5)).reshape(2, 5, 3)
    np.testing.assert_array_equal(lines[:, 0], starts)
    np.testing.assert_array_equal(lines[:, -1], ends)
    np.testing.assert_allclose(lines[1, 2], 1.0)


def test_the_manifold_is_drawn_at_even_quantiles_of_the_prior():
    places = scipy.stats.norm.cdf(np.asarray(report.quantile_grid(5))).reshape(5, 5, 2)
    even = np.linspace(0.02, 0.98, 5)
    np.testing.assert_allclose(places[0, :, 0], even, atol=1e-6)  # rightwards
    np.testing.assert_allclose(places[:, 0, 1], even[::-1], atol=1e-6)  # from the top down


def test_a_resumed_run_ends_bit_equal_to_an_uninterrupted_one(finished, tmp_path, capsys):
    steps = checkpoint._newest_first(finished.out_dir / "checkpoints")
    assert [path.name for path in steps] == ["epoch_00000004", "epoch_00000002"]
    half = tmp_path / "checkpoints"
    half.mkdir()
    subprocess.run(["cp", "-r", steps[1], half], check=True)
    resumed = run_in(tmp_path, resume=True)
    assert "Resuming from epoch 2" in capsys.readouterr().out
    for a, b in zip(leaves(newest(finished)), leaves(newest(resumed)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_last_good_one(
    finished, tmp_path, capsys, damage
):
    folder = tmp_path / "checkpoints"
    subprocess.run(["cp", "-r", finished.out_dir / "checkpoints", folder], check=True)
    last = folder / "epoch_00000004"
    victim = max((f for f in last.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(victim.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "truncate":
        victim.write_bytes(content[:-1])
    elif damage == "remove":
        victim.unlink()
    else:
        (last / checkpoint.MANIFEST).write_text("{")
    like = make_trainer(finished, data.digits()).start()
    state = checkpoint.load_newest(folder, like)
    assert int(state.epoch) == 2
    assert "Skipping the checkpoint epoch_00000004" in capsys.readouterr().out


def test_a_new_run_leaves_nothing_of_an_old_one_to_resume(tmp_path, capsys):
    run_in(tmp_path)
    run_in(tmp_path, epochs=2, seed=5)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["epoch_00000002"]
    run_in(tmp_path, epochs=2, seed=5, resume=True)
    assert "Resuming from epoch 2" in capsys.readouterr().out
    rows = report.read_metrics(tmp_path / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2]
    with pytest.raises(SystemExit, match="--resume needs --seed 5 as before, got 6"):
        run_in(tmp_path, epochs=2, seed=6, resume=True)


@pytest.mark.parametrize("name", ["latents", "epochs", "batch_size", "eval_every", "iwae_k"])
def test_a_size_below_one_is_refused(name):
    with pytest.raises(SystemExit, match="must be at least 1, got 0"):
        dataclasses.replace(TINY, **{name: 0})


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(SystemExit, match="at most 1437"):
        make_trainer(dataclasses.replace(TINY, batch_size=5000), data.digits())


def test_without_a_good_checkpoint_a_resumed_run_says_so(tmp_path, capsys):
    run_in(tmp_path, resume=True, epochs=1)
    assert "No good checkpoint" in capsys.readouterr().out


def test_a_nan_batch_is_skipped_and_counted_and_changes_no_parameter():
    digits = data.digits()
    bad = digits._replace(train=np.full_like(digits.train, np.nan))
    trainer = make_trainer(TINY, bad)
    state = trainer.start()
    before = [np.asarray(x) for x in jax.tree.leaves(state.params)]
    state, metrics = trainer.epoch(state)
    batches = len(digits.train) // TINY.batch_size
    assert int(metrics.skipped) == int(metrics.consecutive_skipped) == batches
    for a, b in zip(before, jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_nan_image_costs_one_batch():
    digits = data.digits()
    train = digits.train.copy()
    train[7] = np.nan
    trainer = make_trainer(dataclasses.replace(TINY, batch_size=479), digits._replace(train=train))
    state, metrics = trainer.epoch(trainer.start())
    assert int(metrics.skipped) == 1  # 1,437 = 3 · 479: every image is in a batch
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state.params))


def test_a_run_of_bad_batches_stops_with_a_message(tmp_path, monkeypatch):
    digits = data.digits()
    bad = digits._replace(train=np.full_like(digits.train, np.nan))
    monkeypatch.setattr("examples.vae.__main__.load", lambda *_: bad)
    with pytest.raises(SystemExit, match="not finite"):
        run_in(tmp_path, max_bad_batches=8)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "examples.vae", *arguments]


def test_ctrl_c_saves_and_exits_cleanly(tmp_path):
    arguments = ["--epochs", "100000", "--hidden", "8", "--latents", "2", "--eval-samples", "10"]
    process = subprocess.Popen(
        command(*arguments, "--eval-every", "100000", "--out-dir", str(tmp_path)),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Continue with --resume" in output
    assert len(list((tmp_path / "checkpoints").glob("epoch_*"))) == 1


def test_ctrl_c_after_the_decision_to_save_leaves_a_checkpoint(tmp_path, monkeypatch):
    append = report.append_metrics

    def interrupted(*arguments, **row):
        append(*arguments, **row)
        if row["epoch"] == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(report, "append_metrics", interrupted)
    config = run_in(tmp_path, epochs=1000, eval_every=1000)
    saved = newest(config)
    assert saved is not None
    assert int(saved.epoch) == 2


def test_help_lists_every_choice():
    result = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True)
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')}" in result.stdout


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [("diagonal", "learned"), ("low-rank", "standard"), ("full", "standard"), ("full", "learned")],
)
def test_every_posterior_and_prior_trains(posterior, prior):
    config = dataclasses.replace(TINY, posterior=posterior, prior=prior, iwae_k=2)
    trainer = make_trainer(config, data.digits())
    state, metrics = trainer.epoch(trainer.start())
    assert int(metrics.skipped) == 0
    assert np.isfinite(trainer.evaluate(state).nll)


def test_more_importance_samples_give_a_tighter_bound(finished):
    model = make_trainer(finished, data.digits()).model(newest(finished))
    x = jnp.asarray(data.digits().test)
    weights = objective.log_weights(model, x, jax.random.key(0), 64)
    bounds = [
        float(jnp.mean(objective.log_mean_exp(weights.reshape(k, -1, len(x)))))
        for k in (1, 4, 16, 64)
    ]
    assert bounds == sorted(bounds)
    terms = objective.elbo_terms(model, x, jax.random.key(1))
    excess = np.asarray(terms.distortion + terms.rate + jnp.mean(weights, axis=0))
    assert abs(excess.mean()) < 5 * excess.std() / np.sqrt(len(x))  # both estimate the ELBO


def test_the_likelihood_is_binomial():
    rng = np.random.default_rng(0)
    x, logits = rng.integers(0, 17, (5, 9)), rng.normal(size=(5, 9)) * 3
    expected = scipy.stats.binom(16, scipy.special.expit(logits)).logpmf(x).sum(axis=1)
    got = objective.log_likelihood(jnp.float32(logits), jnp.float32(x), 16)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_free_bits_make_a_small_rate_free():
    config = dataclasses.replace(TINY, free_bits=1e3)
    trainer = make_trainer(config, data.digits())
    model = trainer.model(trainer.start())
    x = jnp.asarray(data.digits().test)

    def loss(beta):
        return objective.training_loss(model, x, jax.random.key(0), beta)[0]

    np.testing.assert_allclose(loss(1.0) - loss(0.0), 1e3, rtol=1e-4)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def tiny_mnist(tmp_path):
    """Four small IDX files, and their checksums."""
    rng = np.random.default_rng(0)
    checksums = {}
    for name in data.MNIST_MD5:
        count = 6 if name.startswith("train") else 4
        shape = (count, 28, 28) if "images" in name else (count,)
        content = idx(rng.integers(0, 10 if "labels" in name else 256, shape).astype(np.uint8))
        (tmp_path / name).write_bytes(content)
        checksums[name] = hashlib.md5(content).hexdigest()
    return tmp_path, checksums


def test_mnist_files_are_read(tiny_mnist):
    mnist = data.mnist(*tiny_mnist)
    assert mnist.train.shape == (6, 784)
    assert mnist.test_labels.shape == (4,)
    assert mnist.train.min() >= 0
    assert mnist.train.max() <= 1
    assert mnist.dynamic


def test_a_wrong_or_missing_mnist_file_is_refused(tiny_mnist):
    folder, checksums = tiny_mnist
    with pytest.raises(SystemExit, match="MD5 checksum"):
        data.mnist(folder)
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SystemExit, match="cannot be read"):
        data.mnist(folder, checksums)


def test_mnist_without_a_folder_says_what_to_fetch():
    with pytest.raises(SystemExit, match="train-images-idx3"):
        data.load("mnist", None)


@pytest.mark.skipif("GAUSSJAX_MNIST_DIR" not in os.environ, reason="needs GAUSSJAX_MNIST_DIR")
def test_the_real_mnist_files_are_read():
    mnist = data.load("mnist", Path(os.environ["GAUSSJAX_MNIST_DIR"]))
    assert (mnist.train.shape, mnist.test.shape) == ((60_000, 784), (10_000, 784))
    assert np.bincount(mnist.test_labels).tolist()[:3] == [980, 1135, 1032]
