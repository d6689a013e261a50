"""RMGL, MGN and PCB with the same budget on MSMT17 (Table III).

    python -m experiments.table3_msmt17 --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.table3_msmt17 --dataset msmt17/trainval ...

The paper does not say if it trained on `train` (the default) or `trainval`; its numbers are shown
for both. --rows RMGL runs only RMGL. Every run is also re-ranked; the paper has no such numbers
here.

"MGN" and "PCB" are in RMGL's network with RMGL's budget; "-as-published" are the networks and
settings of their own papers.

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

Not measured with this code.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import PaperNumbers, Row, Sweep, numbers


def _either(mean_ap: float, rank_1: float) -> PaperNumbers:
    """Numbers that may be of either training set."""
    return numbers({name: (mean_ap, rank_1) for name in ("msmt17/train", "msmt17/trainval")})


ROWS = (
    Row("RMGL", presets.reranked(presets.rmgl), _either(60.4, 83.6)),
    Row("MGN", presets.reranked(presets.mgn), baseline="RMGL"),
    Row("PCB", presets.reranked(presets.pcb), baseline="RMGL"),
    Row("MGN-as-published", presets.reranked(presets.mgn_as_published), baseline="MGN"),
    Row("PCB-as-published", presets.reranked(presets.pcb_as_published), baseline="PCB"),
)

SWEEP = Sweep(
    name="table3_msmt17",
    title="MSMT17 (Table III)",
    presets=presets.sweep_presets("msmt17/train"),
    rows=ROWS,
    published={
        "GoogLeNet": _either(23.0, 47.6),
        "PDC": _either(29.7, 58.0),
        "GLAD": _either(34.0, 61.4),
        "SFT": _either(47.6, 73.6),
        "IANet": _either(46.8, 75.5),
        "Auto-ReID": _either(52.5, 78.2),
        "PAP+PS": _either(55.3, 80.8),
        "DG-Net": _either(52.3, 77.2),
    },
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
