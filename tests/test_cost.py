"""The table of costs: counts from shapes, and open cells."""

from benchmarks.cost import METHODS, OPEN, count, grid
from rmgl_jax.config import ModelConfig
from rmgl_jax.stages import RESIDUAL_STAGES


def bottlenecks(stage, depth, channels):
    """Parameters of a stage of ResNet-50 with its batch norms, and its output channels."""
    inner, outer = 64 * stage.width, 256 * stage.width
    block = 9 * inner**2 + inner * outer + 2 * (2 * inner + outer)
    total = depth * block + channels * inner + (depth - 1) * outer * inner
    return total + channels * outer + 2 * outer, outer


def parameters(branches, heads):
    """Parameters of a network whose branches separate after res2, without classifiers."""
    total, channels = 7 * 7 * 3 * 64 + 2 * 64, 64
    for stage, depth in zip(RESIDUAL_STAGES, ModelConfig().depth, strict=True):
        size, channels = bottlenecks(stage, depth, channels)
        total += size * (1 if stage.name == "res2" else branches)
    return total + heads * (channels * 256 + 2 * 256)


def test_count_of_a_network_with_two_branches():
    branches, heads = 2, 7
    found = count("baseline, 2+3-stripe")
    assert found["parameters_of_embedding"] == parameters(branches, heads)
    classifiers = heads * (256 + 1) * 751
    assert found["parameters"] == parameters(branches, heads) + classifiers
    assert found["embedding_width"] == 256 * heads


def test_grid_leaves_open_what_was_not_measured():
    found = {
        "RMGL": {"parameters": 56_840_018, "operations": 44.04e9, "embedding_width": 3584},
        "PCB in this network": {"step_bytes": 2**30, "latency_seconds": 0.02},
    }
    rows = {row[0]: row[1:] for row in grid(found).rows}
    assert list(rows) == list(METHODS)
    assert rows["RMGL"] == ("56.8", OPEN, "44.0", "3,584", OPEN, OPEN)
    assert rows["PCB in this network"] == (*(OPEN,) * 4, "1.0", "20")
    assert set(rows["MGN in this network"]) == {OPEN}
