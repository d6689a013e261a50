"""Train on a dataset, or resume the run in the work directory.

    rmgl train --dataset market1501 --source DIR --weights resnet50.pth --preset gpu
    rmgl train --dataset folder/mine --source DIR --preset cpu
    rmgl train --dataset synthetic/demo

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores
  mgn, pcb          MGN and PCB in the same network, with the budget of paper
  mgn_cpu, pcb_cpu  the same with the budget of cpu
  demo, tiny        for synthetic/demo and synthetic/tiny, minutes and seconds on two CPU cores

The dataset is prepared on first use. An interrupted run resumes when the same command is repeated.
"""

from collections.abc import Sequence

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.options import find_value
from rmgl_jax.experiment.presets import presets_for


def main(arguments: Sequence[str], prog: str = "rmgl train") -> None:
    """Runs the command line of `rmgl train`."""
    dataset = find_value(arguments, "--dataset", "market1501")
    run_main(presets_for(dataset), {}, __doc__ or "", arguments, prog)
