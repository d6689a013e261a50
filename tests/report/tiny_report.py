"""Run directories that no training wrote, and ways to read their page."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import jax.numpy as jnp

from rmgl_jax.config import EvalConfig, ExperimentConfig
from rmgl_jax.training.checkpoints import open_checkpoints, save
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import init_run_directory
from rmgl_jax.training.step import TrainState
from tests.tiny import tiny_config
from tests.tiny_model import random_variables

STEP = 4
BATCH_SIZE = 64


def report_config(dataset: str, granularities=(2, 3)) -> ExperimentConfig:
    config = tiny_config(granularities)
    model = replace(config.model, width=2, embed_dim=4)
    return replace(config, dataset=dataset, model=model, eval=EvalConfig(batch_size=BATCH_SIZE))


def write_records(workdir: Path) -> None:
    """Metrics of four steps, the last with a loss that is no number, and of one evaluation."""
    records = [
        {
            "kind": "train",
            "step": step,
            "loss": 5.0 - step,
            "cross_entropy": 3.0,
            "triplet": 2.0 - step if step < STEP else "nan",
            "learning_rate": 0.01,
            "accuracy": 0.25 * step,
            "images_per_second": 10.0 * step,
        }
        for step in range(1, STEP + 1)
    ]
    measured = {"rank-1": 0.25, "mean_ap": 0.2, "mean_ap_official": 0.15, "mean_inp": 0.05}
    records.append({"kind": "eval", "step": STEP, **measured})
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def write_run(workdir: Path, config: ExperimentConfig) -> dict:
    """Writes configuration, metrics and a checkpoint of random weights, which are returned."""
    init_run_directory(config, workdir)
    write_records(workdir)
    variables = random_variables(config.model)
    opt_state = make_optimizer(config.optimizer, 1).init(variables["params"])
    state = TrainState(step=jnp.int32(STEP), opt_state=opt_state, **variables)
    with open_checkpoints(workdir / "checkpoints", keep=1) as manager:
        save(manager, state, 0.5)
    return variables


def section(html: str, name: str) -> str:
    """Content of the section with this id; names of maps without their break."""
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', html, re.DOTALL)
    return found.replace("<wbr>", "")


def visible_text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
