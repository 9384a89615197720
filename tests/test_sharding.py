"""A batch over eight devices: the same values, and no device waits for another."""

import json
from pathlib import Path

import pytest
from compiling import QUICK_FLAGS
from processes import on_eight_devices

PROGRAM = Path(__file__).with_name("sharded.py")
KNOWN = {  # collectives that cannot go: one `cond` for a whole batch asks all devices
    "Auto": {"sample of toeplitz, d = 34": ["all-reduce"]},
    "Explicit": {},
}
pytestmark = pytest.mark.timeout(900)
AXES = [pytest.param(axes, marks=pytest.mark.xdist_group(axes)) for axes in KNOWN]


@pytest.fixture(scope="module", params=AXES)
def report(request):
    """What `sharded.py` found in a process of its own, that has eight devices.

    It compiles some hundred programs for their values and collectives, not for their speed.
    """
    found = on_eight_devices(PROGRAM, request.param, timeout=880, flags=QUICK_FLAGS)
    return json.loads(found) | {"axes": request.param}


def test_a_sharded_batch_gives_the_same_values_without_a_collective(report):
    found = report["batched"]
    assert len(found) >= {"Auto": 180, "Explicit": 80}[report["axes"]]
    assert {name: f["failed"] for name, f in found.items() if "failed" in f} == {}
    assert {name: f["error"] for name, f in found.items() if not f["error"] <= 1e-5} == {}
    talking = {name: f["collectives"] for name, f in found.items() if f["collectives"]}
    assert talking == KNOWN[report["axes"]]


def test_results_stay_sharded_like_the_batch(report):
    assert {name for name, found in report["batched"].items() if not found["sharded"]} == set()


def test_a_batch_that_every_device_has_whole_has_its_densities(report):
    assert max(report["replicated"].values()) < 1e-5


def test_explicit_axes_refuse_no_function_of_any_structure(report):
    assert report["refused"] == {}


def test_explicit_axes_need_no_mesh_to_be_set(report):
    assert report["unset"] == {}


def test_a_mean_over_sharded_data_takes_one_sum_of_the_parameters_size(report):
    for found in report["shared"].values():
        assert found["error"] < 2e-6
        assert found["collectives"] == ["all-reduce"]
        assert found["reduced"] <= found["parameters"] + 2  # the value, and the mean's own count


def test_one_gaussian_and_sharded_data_need_no_collective(report):
    for found in report["shared"].values():
        assert {name: e for name, e in found["errors"].items() if not e < 1e-5} == {}
        assert found["talking"] == []


def test_arguments_that_differ_in_sharding_are_brought_together(report):
    assert all(found["mixed"] < 2e-6 for found in report["shared"].values())


def test_operands_may_compete_for_an_axis_of_the_mesh(report):
    assert len(report["crossing"]) == {"Auto": 10, "Explicit": 4}[report["axes"]]
    assert {name: e for name, e in report["crossing"].items() if not e < 1e-5} == {}


def test_a_covariance_that_a_sharded_batch_shares_stays_shared(report):
    assert {name: e for name, e in report["parts"].items() if not e < 1e-5} == {}


def test_vmap_and_shard_map_take_a_sharded_batch_apart(report):
    assert len(report["transformed"]) == 24
    assert {name: e for name, e in report["transformed"].items() if not e < 1e-5} == {}
