"""Receptive partition, ABP and RSA, alone and combined, with one or more branches (Table V).

    python -m experiments.table5_components --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.table5_components --dataset dukemtmc_reid ...
    python -m experiments.table5_components --preset demo --seeds 3 --rows 2+3-stripe 2+3-stripe+RP
    python -m experiments.table5_components --preset demo --seeds 3 --only-draw

The first command is the paper's table, 21 runs, and 3 controls. The third is two of its rows with a
thin network on rendered pedestrians, three runs each, which two CPU cores can do. --rows selects
rows by name, --only-draw shows the results that are in --workdir.

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores;
         3 and 6 stripes do not divide its map
  demo   a thin network at 96x48 from scratch, on synthetic/demo; its RSA acts on half of the
         images, and four stripes (RMGL-2+3+4) do not divide its map
  tiny   a few images, for a quick check

"n-stripe" is the baseline with n stripes per branch, global features and triplet loss. ABP changes
the partition and, by Eq. 11, the reduction within a stripe from the maximum to the mean. The rows
"n-stripe-mean" change only the reduction; +ABP is compared with them too. They are not in the
paper. Measured results are in docs/reproduction.md.
"""

from functools import partial

from rmgl_jax.config import PathName
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep, numbers

_RP: tuple[PathName, ...] = ("original", "receptive")
_ONLY_RP: tuple[PathName, ...] = ("receptive",)


def _row(
    name: str,
    market: tuple[float, float],
    duke: tuple[float, float],
    granularities: tuple[int, ...],
    baseline: str | None = None,
    paths: tuple[PathName, ...] = ("original",),
    abp: bool = False,
    rsa: bool = False,
    control: str | None = None,
) -> Row:
    return Row(
        name,
        partial(presets.components, granularities=granularities, paths=paths, abp=abp, rsa=rsa),
        paper=numbers({"market1501": market, "dukemtmc_reid": duke}),
        baseline=baseline,
        control=control,
    )


def _mean(baseline: str, granularities: tuple[int, ...]) -> Row:
    """The baseline with uniform stripes averaged, as ABP averages its balanced ones."""
    return Row(
        f"{baseline}-mean",
        partial(presets.components, granularities=granularities, pool="mean"),
        baseline=baseline,
    )


_TWO, _THREE, _BOTH = "2-stripe", "3-stripe", "2+3-stripe"
_RMGL = f"{_BOTH}+RP+ABP+RSA"
_abp = partial(_row, abp=True)
_rmgl = partial(_row, paths=_RP, abp=True, rsa=True)

ROWS = (
    _row(_TWO, (85.6, 95.0), (76.5, 88.1), (2,)),
    _row(_THREE, (85.5, 94.9), (77.1, 88.2), (3,)),
    _row(_BOTH, (87.1, 95.5), (79.0, 89.3), (2, 3)),
    _row(f"{_TWO}+RP", (86.8, 95.0), (77.5, 88.1), (2,), _TWO, paths=_RP),
    _row(f"{_THREE}+RP", (86.6, 95.3), (78.3, 88.9), (3,), _THREE, paths=_RP),
    _row(f"{_BOTH}+RP", (88.3, 95.7), (79.9, 89.5), (2, 3), _BOTH, paths=_RP),
    _row(f"{_TWO}-only-RP", (86.3, 95.0), (77.2, 88.0), (2,), _TWO, paths=_ONLY_RP),
    _row(f"{_THREE}-only-RP", (86.5, 95.3), (78.1, 88.7), (3,), _THREE, paths=_ONLY_RP),
    _row(f"{_BOTH}-only-RP", (88.0, 95.7), (79.6, 89.3), (2, 3), _BOTH, paths=_ONLY_RP),
    _row(f"{_TWO}+RSA", (86.8, 95.2), (77.4, 88.9), (2,), _TWO, rsa=True),
    _row(f"{_THREE}+RSA", (86.6, 95.2), (78.1, 88.6), (3,), _THREE, rsa=True),
    _row(f"{_BOTH}+RSA", (88.3, 95.9), (79.9, 89.5), (2, 3), _BOTH, rsa=True),
    _row(f"{_TWO}+RP+RSA", (88.1, 95.5), (78.7, 89.1), (2,), _TWO, paths=_RP, rsa=True),
    _row(f"{_BOTH}+RP+RSA", (89.7, 96.1), (80.8, 90.3), (2, 3), _BOTH, paths=_RP, rsa=True),
    _mean(_TWO, (2,)),
    _mean(_THREE, (3,)),
    _mean(_BOTH, (2, 3)),
    _abp(f"{_TWO}+ABP", (86.0, 95.2), (76.7, 88.5), (2,), _TWO, control=f"{_TWO}-mean"),
    _abp(f"{_THREE}+ABP", (86.5, 95.2), (77.4, 88.6), (3,), _THREE, control=f"{_THREE}-mean"),
    _abp(f"{_BOTH}+ABP", (87.8, 95.5), (79.3, 89.7), (2, 3), _BOTH, control=f"{_BOTH}-mean"),
    _rmgl(f"{_TWO}+RP+ABP+RSA", (88.5, 95.6), (79.0, 89.1), (2,), _TWO),
    _rmgl(_RMGL, (90.0, 96.2), (81.0, 90.5), (2, 3), _BOTH),
    _rmgl("RMGL-1+2+3", (89.8, 96.0), (81.2, 90.5), (1, 2, 3), _RMGL),
    _rmgl("RMGL-2+3+4", (90.1, 96.2), (81.5, 90.7), (2, 3, 4), _RMGL),
)

SWEEP = Sweep(
    name="table5_components",
    title="Components (Table V)",
    presets=presets.sweep_presets("market1501")
    | {"cpu_pretrained": presets.cpu_pretrained("market1501")},
    rows=ROWS,
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
