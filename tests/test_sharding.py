"""A batch over eight devices: the same values, and no device waits for another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sharded.py")


@pytest.fixture(scope="module", params=["Auto", "Explicit"])
def report(request):
    """What `sharded.py` found in a process of its own, that has eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, PROGRAM, request.param],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def test_a_sharded_batch_gives_the_same_values_without_a_collective(report):
    assert len(report["batched"]) >= 60
    wrong = {name: found for name, found in report["batched"].items() if found["error"] > 1e-6}
    assert wrong == {}
    talking = {name: f["collectives"] for name, f in report["batched"].items() if f["collectives"]}
    assert talking == {}


def test_results_stay_sharded_like_the_batch(report):
    assert {found["sharding"] for found in report["batched"].values()} == {"batch"}


def test_a_mean_over_sharded_data_takes_one_sum_of_the_parameters_size(report):
    found = report["mean"]
    assert found["error"] < 1e-6
    assert found["collectives"] == ["all-reduce"]
    assert found["reduced"] <= found["parameters"] + 2  # the value, and the mean's own count


def test_arguments_that_differ_in_sharding_are_brought_together(report):
    assert report["mixed"] < 1e-6
