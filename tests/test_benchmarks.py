"""The benchmark measures, says what hangs, and writes tables and figures."""

import json
import re
import sys

import jax
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

from benchmarks import cells, distances, front_page, harness, no_hang, tables, thresholds
from benchmarks.__main__ import speed
from benchmarks.harness import Worker
from benchmarks.operations import COARSE, MEASURES, SWEEPS, Row, rows
from gaussjax.linalg._kernels import limits

ROW = Row("dim", "entropy", 3, 2)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Name of the files of one small run."""
    name = str(tmp_path_factory.mktemp("results") / "speed")
    speed(
        sweeps=("dim",),
        measures=("entropy", "entropy_gradient"),
        libraries=("gaussjax", "copy"),
        dims=(2,),
        work=12,
        seconds=0.01,
        name=name,
    )
    return name


def test_a_run_leaves_cells_a_table_and_a_figure(measured):
    data = harness.load(measured)
    assert [(cell["measure"], cell["library"]) for cell in data["cells"]] == [
        ("entropy", "gaussjax"),
        ("entropy", "copy"),
        ("entropy_gradient", "gaussjax"),
        ("entropy_gradient", "copy"),
    ]
    for cell in data["cells"]:
        assert cell["lower_quartile"] <= cell["median"] <= cell["upper_quartile"]
        assert cell["calls"] >= cells.ENOUGH
        assert cell["compile"] > 0
        assert cell["argument_bytes"] > 0
    assert "| 3 × 2 |" in harness.path_of(measured, "md").read_text()
    assert harness.path_of(f"{measured}_dim", "png").read_bytes().startswith(b"\x89PNG")


def test_a_copy_moves_the_bytes_of_arguments_and_results(measured):
    copy = harness.load(measured)["cells"][1]
    mean, lower, entropy = 3 * 2, 3 * 2 * 2, 3
    assert copy["argument_bytes"] == copy["output_bytes"] == 4 * ((mean + lower + entropy) // 2)


def test_one_gaussian_alone_is_not_mapped_over_a_batch():
    alone, batch = Row("single", "kl", None, 2), Row("dim", "kl", 3, 2)
    asked = [cells.is_asked("gaussjax, vmap", row, ["kl"]) for row in (alone, batch)]
    assert asked == [False, True]


def test_a_resumed_run_measures_only_what_is_missing(measured):
    before = harness.load(measured)["cells"]
    data = harness.load(measured)
    harness.save(measured, {**data, "cells": before[:2]})
    again = {"sweeps": ("dim",), "dims": (2,), "work": 12, "seconds": 0.01, "name": measured}
    speed(measures=("entropy", "solve"), libraries=("gaussjax",), resume=True, **again)
    after = harness.load(measured)["cells"]
    assert after[:2] == before[:2]
    assert [cell["measure"] for cell in after[2:]] == ["solve"]
    every = list(rows(SWEEPS, MEASURES, None, 12))
    assert harness.load(measured)["left"] == len(every) - 2  # of this size: entropy and solve
    harness.save(measured, data)


def test_a_run_without_time_says_how_much_it_did_not_reach(tmp_path):
    name = str(tmp_path / "late")
    late = {"libraries": ("gaussjax",), "minutes": -1.0, "name": name}
    speed(sweeps=("dim",), measures=("kl", "sample"), dims=(2, 4), **late)
    assert "**4 planned rows are not measured yet" in harness.path_of(name, "md").read_text()


def test_a_library_that_hangs_is_a_cell_that_says_so():
    asleep = Worker("asleep", limit=0.2)
    asleep.command = [sys.executable, "-c", "import time; time.sleep(60)"]
    (cell,) = cells.measure({"distrax": asleep}, ROW, 0.01)
    assert cell["hangs"] == cells.ATTEMPTS
    assert cell["median"] is None
    assert "| 3 × 2 | hung 2× |" in tables.times([cell])


def test_a_library_that_fails_is_a_cell_that_says_why():
    worker = Worker("gaussjax", limit=60.0)
    (cell,) = cells.measure({"gaussjax": worker}, Row("dim", "entropy", 3, -1), 0.01)
    assert cell["error"]
    assert cell["error"] in tables.problems([cell])
    assert "failed" in tables.times([cell])


def test_the_coarse_part_of_every_sweep_comes_before_the_rest():
    planned = list(rows(("single", "batch", "dim"), ("kl",), None))
    coarse = [row.sweep == "dim" and row.dim in COARSE for row in planned]
    fine = [row.sweep == "single" and row.dim == 4096 for row in planned]
    assert max(i for i, x in enumerate(coarse) if x) < fine.index(True)
    assert len(planned) == len(set(planned))


def test_every_public_function_is_called_for_hangs():
    with jax.numpy_rank_promotion("allow"):
        found = no_hang.cases(batch=1, dim=2)
    assert "observe" in found
    with pytest.raises(LookupError, match="condition is not called"):
        no_hang.check_that_all_are_there({k: v for k, v in found.items() if k != "condition"})


def test_the_gradient_of_a_batch_can_be_lowered_for_every_public_function():
    """Not so where a derivative has a batch that its value has not: JAX says so only here."""
    with jax.numpy_rank_promotion("allow"):
        for function, arguments in no_hang.cases(batch=2, dim=4).values():
            jax.jit(no_hang.gradient(function)).lower(*arguments)


def test_a_command_measures_both_sides_of_every_limit():
    names = {name for name in vars(limits) if name.isupper()}
    assert {name for name in names if f"`{name}`" not in thresholds.__doc__} == set()
    assert {name for side in thresholds.SIDES.values() for name in side} <= names


def test_distances_are_measured_beside_the_textbook():
    asked = {"name": "total_correlation", "dim": 2, "batch": 3, "seconds": 0.0}
    for library in (distances.OURS, distances.BY_HAND):
        found = distances.measured({**asked, "library": library})
        assert found["error"] < 1e-3
        assert min(found[k] for k in ("value", "gradient", "compile_gradient")) > 0


def test_what_a_child_cannot_do_is_an_answer(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", ['{"name": "x"}'])
    harness.answer(lambda cell: cell["y"])
    assert json.loads(capsys.readouterr().out) == {"failed": "KeyError: 'y'"}


# Documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", front_page.DOCUMENTS)
def test_the_tables_of_the_documents_are_those_of_the_results(document):
    text = (harness.ROOT / document).read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
    assert front_page.filled(text) == text, "python -m benchmarks.front_page writes them"


def test_the_front_page_is_two_screens_and_its_links_lead_somewhere():
    text = (harness.ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) > 15
    assert [x for x in links if "://" not in x and not (harness.ROOT / x).exists()] == []
