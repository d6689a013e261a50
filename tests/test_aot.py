"""The programs that the compiler for TPUs makes of the step and of the evaluation."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.aot import collectives, summarize

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def compiled():
    """Figures of the tiny preset on 16 chips, and the operations of its step."""
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install 'rmgl_jax[aot]'")
    result = subprocess.run(
        [sys.executable, "-m", "tests.aot_programs"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


@pytest.mark.network
def test_step_for_sixteen_chips_donates_its_state(compiled):
    found = compiled["found"]
    assert found["chips"] == 16
    assert found["state_bytes"] >= compiled["sizes"]["state"]


@pytest.mark.network
def test_step_reduces_gradients_once(compiled):
    """With the statistics and metrics, which travel along; twice would be twice the parameters."""
    size = compiled["sizes"]["parameters"]
    reduced = compiled["found"]["collectives"]["by_cause"]["gradients"]["bytes"]
    assert size <= reduced < 1.2 * size


@pytest.mark.network
def test_evaluation_exchanges_nothing_in_its_forward_pass(compiled):
    for program in ("embed_batch", "distances"):
        assert compiled["found"][program]["collectives"]["count"] == 0
        assert compiled["found"][program]["flops"] > 0


@pytest.mark.network
def test_step_has_the_same_operations_for_four_and_sixteen_chips(compiled):
    programs = compiled["programs"]
    assert programs["jit4"] == programs["jit16"]
    assert programs["jit4"].count("all_reduce") > 10


@pytest.mark.network
def test_step_by_pmap_exchanges_as_by_jit(compiled):
    jit, pmap = compiled["programs"]["jit4"], compiled["programs"]["pmap4"]
    for kind in ("all_reduce", "all_gather", "convolution", "dot_general"):
        assert pmap.count(kind) == jit.count(kind)


def test_collectives_are_read_from_the_text_of_a_program():
    one_gather = """
        f32[4,2]{1,0} all-gather(%d), frontend_attributes={chain_id="0"}, metadata={op_name="ag"}
    """.strip()
    lines = (
        "%psum.1 = f32[2,16]{1,0:T(2,128)S(1)} all-reduce(%a), "
        'metadata={op_name="jit(f)/jvp(M)/bn1/psum"}',
        "%all-reduce.2 = (f32[8]{0}, bf16[3,3,8,8]{3,2,1,0}) all-reduce-start(%b, %c), "
        'metadata={op_name="jit(f)/psum"}',
        "%all-reduce.3 = (f32[8]{0}, bf16[3,3,8,8]{3,2,1,0}) all-reduce-done(%all-reduce.2)",
        f"%gather.1 = {one_gather}",
        f"ROOT %gather.2 = {one_gather}",
        "%add.1 = f32[4,2]{1,0} add(%all-reduce.2, %gather.1)",
    )
    text = "\n".join(lines)
    found = summarize(collectives(text))
    assert found["count"] == 3
    assert found["by_cause"] == {
        "statistics": {"count": 1, "bytes": 128},
        "gradients": {"count": 1, "bytes": 32 + 2 * 576},
        "triplets": {"count": 1, "bytes": 32},
    }
