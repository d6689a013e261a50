"""The record of a GPU, rehearsed on the CPU with the tiny preset."""

import json

import pytest

from benchmarks.gpu_record import PROBLEMS, STAGES, record, tables

TINY = PROBLEMS["tiny"]


def run_here(name, preset, seconds):
    """A stage in this process, which already has JAX."""
    return STAGES[name](PROBLEMS[preset])


def no_training(problem, folder, seconds):
    return {"checkpoints": ["3"], "status": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    record(folder, TINY, 60, run_here, no_training)
    return folder


@pytest.mark.network
def test_record_has_every_stage(folder):
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert found.keys() == {*STAGES, "training"}
    assert not [name for name, value in found.items() if "error" in value]
    assert found["step"]["jit"]["batch"] == TINY.batch
    assert found["parity"]["largest_difference_of_largest_value"] == {"maps": 0, "gradients": 0}
    assert found["remat"]["remat"]["flops"] > found["remat"]["plain"]["flops"]
    assert [row["batch"] for row in found["sweep"]["rows"]] == list(TINY.sweep)
    assert found["embed"]["images_per_second"] > 0
    assert found["host_gap"]["gap"] > -1


@pytest.mark.network
def test_record_repeats_only_what_failed(folder):
    (folder / "embed.json").write_text(json.dumps({"error": "stopped after 3 s"}))
    ran = []

    def run(name, preset, seconds):
        ran.append(name)
        return {"images_per_second": 5.0}

    record(folder, TINY, 1, run, no_training)
    assert ran == ["embed"]


@pytest.mark.network
def test_tables_have_a_row_for_each_measurement(folder):
    text = tables(folder)
    for name in ("step, jit", "step, pmap", "step, batch 16", "step, remat"):
        assert f"| {name} | 16 |" in text


def test_record_says_which_stages_had_no_time(tmp_path):
    record(tmp_path, TINY, 0, run_here, no_training)
    assert "environment: no time was left" in tables(tmp_path)


def test_record_goes_on_after_a_stage_that_failed(tmp_path):
    record(tmp_path, TINY, 1, lambda *_: {"error": "broken"}, no_training)
    assert tables(tmp_path).count(": broken") == len(STAGES)
    assert json.loads((tmp_path / "training.json").read_text())["checkpoints"] == ["3"]
