"""What a release promises, and that the check of one finds what is wrong with it."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gaussjax as gj

ROOT = Path(__file__).resolve().parents[1]
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def release():
    path = ROOT / ".ci/release.py"
    if not path.exists():
        pytest.skip("not a checkout")
    spec = importlib.util.spec_from_file_location("release", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_citation_and_the_metadata_have_the_version_of_the_package(release):
    source = (ROOT / "gaussjax/__init__.py").read_text()
    assert release.version_of(source) == gj.__version__
    assert release.not_cited((ROOT / "CITATION.cff").read_text(), gj.__version__) == ""


def test_a_release_is_refused_for_a_reason(release):
    assert "not clean" in release.uncommitted(" M README.md\n")
    assert release.uncommitted("\n") == ""
    assert "must have the tag v0.1.0" in release.wrong_tag(["v0.1.1"], "0.1.0")
    assert release.wrong_tag(["latest", "v0.1.0"], "0.1.0") == ""
    dated = "## [Unreleased]\n\n## [0.1.0] - 2026-11-30\n\n### Added\n- All.\n"
    assert release.not_in_changelog(dated, "0.1.0") == ""
    assert "must have a section" in release.not_in_changelog(dated, "0.2.0")
    left = dated.replace("[Unreleased]\n", "[Unreleased]\n\n### Fixed\n- One.\n")
    assert "under Unreleased" in release.not_in_changelog(left, "0.1.0")
    assert "version: 0.2.0" in release.not_cited("version: 0.1.0\n", "0.2.0")


def test_a_wheel_with_more_or_less_than_the_package_is_refused(release):
    right = [
        "gaussjax/__init__.py",
        "gaussjax/py.typed",
        "gaussjax/linalg/_kernels/native/kernels.cc",
        "gaussjax-0.1.0.dist-info/licenses/LICENSE",
    ]
    assert release.wrong_contents(right) == ""
    for extra in ("tests/test_errors.py", "gaussjax/__pycache__/a.pyc", "benchmarks/__init__.py"):
        assert extra in release.wrong_contents([*right, extra])
    assert "py.typed" in release.wrong_contents([right[0], *right[2:]])


def test_an_sdist_with_more_or_less_than_the_sources_is_refused(release):
    right = ["gaussjax-0.1.0", *(f"gaussjax-0.1.0/{name}" for name in release.SOURCES)]
    assert release.wrong_sources(right) == ""
    for extra in ("runs/vae/metrics.csv", "gaussjax/linalg/_kernels/native/libgaussjax.so"):
        assert extra in release.wrong_sources([*right, f"gaussjax-0.1.0/{extra}"])
    assert "lacks ['tests']" in release.wrong_sources([n for n in right if "tests" not in n])


LOWER = np.array([[1.0, 0.0], [0.5, 2.0]], np.float32)
BAND = np.array([[1.0, 2.0], [0.5, 0.0]], np.float32)  # the diagonals of LOWER
SCALE, FACTOR = np.array([1.0, 3.0], np.float32), np.array([[1.0], [-2.0]], np.float32)
# Covariances and their roots R, as docs/releases.md promises them.
ROOTS = {
    "isotropic": (gj.Isotropic(jnp.float32(3.0), 2), 3 * np.eye(2)),
    "diagonal": (gj.Diagonal(jnp.asarray(SCALE)), np.diag(SCALE)),
    "cholesky": (gj.Cholesky(jnp.asarray(LOWER)), LOWER),
    "precision": (gj.PrecisionCholesky(jnp.asarray(LOWER)), np.linalg.inv(LOWER.T)),
    "banded precision": (gj.BandedPrecision(jnp.asarray(BAND)), np.linalg.inv(LOWER.T)),
    "low rank": (
        gj.LowRank(jnp.asarray(SCALE), jnp.asarray(FACTOR)),
        np.concatenate([np.diag(SCALE), FACTOR], axis=1),
    ),
}


@pytest.mark.parametrize("name", ROOTS)
def test_samples_of_a_seed_are_the_promised_root_times_the_normals_of_jax(name):
    cov, root = ROOTS[name]
    mean = jnp.array([[1.0, -1.0], [0.0, 5.0], [2.0, 2.0]])
    noise = np.asarray(jax.random.normal(KEY, (4, 3, root.shape[1]), jnp.float32), float)
    draws = gj.sample(KEY, gj.Gaussian(mean, cov), (4,))
    np.testing.assert_allclose(draws, np.asarray(mean) + noise @ root.T, rtol=1e-5, atol=1e-5)


def test_samples_in_half_precision_are_rounded_ones_of_float32():
    g = gj.from_scale(jnp.zeros(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16))
    noise = jax.random.normal(KEY, (3, 2), jnp.float32)
    np.testing.assert_array_equal(gj.sample(KEY, g, (3,)), noise.astype(jnp.bfloat16))
