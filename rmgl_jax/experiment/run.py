"""Training and evaluation of one configuration in one work directory."""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from data_prep.files import check_local, expand, write_text
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.data.pixels import Images
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation import protocol
from rmgl_jax.evaluation.baselines import color_histogram_embedding, pixel_embedding
from rmgl_jax.evaluation.ranking import RankMetrics, rank_features
from rmgl_jax.evaluation.result import EvaluationResult, PaperNumbers, print_results
from rmgl_jax.experiment.initial_weights import check_initial_weights
from rmgl_jax.experiment.splits import AnyPath, QueryAndGallery, load_train_and_test
from rmgl_jax.models.pretrained import load_backbone
from rmgl_jax.training import loop
from rmgl_jax.training.checkpoints import check_path
from rmgl_jax.training.processes import lock_run_directory
from rmgl_jax.training.profile import PROFILE_NAME, WARM_UP, profile_steps
from rmgl_jax.training.run_data import init_run_data
from rmgl_jax.training.run_directory import init_run_directory
from rmgl_jax.training.run_info import save_run_info
from rmgl_jax.training.stop_signals import end_on_sigterm


def train(
    config: ExperimentConfig,
    workdir: AnyPath,
    *,
    source: AnyPath | None = None,
    data_dir: AnyPath | None = None,
    allow_partial: bool = False,
    weights: AnyPath | None = None,
    from_scratch: bool = False,
    baselines: bool = False,
    figures: bool = False,
    profile: int | None = None,
    paper: PaperNumbers | None = None,
    console: Console | None = None,
    on_step: Callable[[int], None] | None = None,
) -> EvaluationResult | None:
    """Prepares the data, trains or resumes, evaluates the last step, and writes `result.json`.

    Interrupted runs resume from the last checkpoint and finish bit-identically, on the same data
    only. A finished run is only evaluated again. A run that another process is working on is
    refused. A dataset without query and gallery is trained on and not evaluated.
    On several processes all call this with the same arguments; process 0 prints and writes.

    Args:
        config: `model.num_classes` and `pretrained` are filled in from the data and `weights`.
        workdir: directory for configuration, logs, checkpoints and result.
        source: directory of the dataset's files, needed to prepare it on first use.
        data_dir: directory of prepared datasets; None is TFDS's own.
        allow_partial: accept other image counts than the published ones.
        weights: ImageNet weights of the backbone; None starts from random ones.
        from_scratch: accept random weights for a network for which ImageNet weights are published,
            such as the paper's ResNet-50. Other networks need no permission.
        baselines: also rank by raw pixels and by color histograms.
        figures: write `report.html` with pictures of the dataset at the end.
        profile: record a profile of this many steps of process 0 in `workdir/profile`.
        paper: published numbers to print next to the result.
        console: for messages, progress and the table; None is silent.
        on_step: called with the number of finished steps after each step of this process.

    Returns:
        The result of the last step; None if the dataset has no query and gallery.

    Raises:
        InputError: an argument is wrong, or `workdir` belongs to another configuration or to other
            data.
        WriteError: another process works on the run, or `workdir` cannot be written.
        MissingFileError: the data or the weights are not there.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    directory = _check_workdir(workdir)
    check_initial_weights(config, weights, from_scratch)
    is_main_process = jax.process_index() == 0
    if console is None or not is_main_process:
        console = Console(quiet=True)
    if figures and jax.process_count() > 1:
        raise InputError(
            f"--figures requires a single process, got {jax.process_count()}; "
            "`python -m rmgl_jax.report` writes the report of a finished run."
        )
    config = replace(config, pretrained=describe_weights(weights))
    train_split, test = load_train_and_test(
        config.dataset,
        config.model.image_size,
        source=source,
        data_dir=data_dir,
        allow_partial=allow_partial,
    )
    if test is None and (baselines or figures):
        raise InputError(
            f"{train_split.dataset} has no query and gallery images, which --baselines and "
            "--figures require."
        )
    if test is not None:
        protocol.check_test_set(*test)
    model = replace(config.model, num_classes=train_split.num_classes)
    config = replace(config, model=model)
    console.print(_describe(config, train_split, test), highlight=False)

    def measure(variables: dict[str, Any]) -> EvaluationResult:
        assert test is not None
        return protocol.evaluate_splits(
            model,
            variables,
            *test,
            config.eval,
            checkpoint=str(directory),
            trained_on=config.dataset,
            console=console if console.is_terminal else None,
        )

    result: EvaluationResult | None = None
    steps = 0  # of this process

    def evaluate_checkpoint(variables: dict[str, Any]) -> dict[str, float]:
        nonlocal result
        result = measure(variables)
        return {
            "rank-1": float(result.plain.cmc[0]),
            "mean_ap": result.plain.mean_ap,
            "mean_ap_official": result.plain.mean_ap_official,
            "mean_inp": result.plain.mean_inp,
        }

    def count_step(done: int) -> None:
        nonlocal steps
        if is_main_process and not steps:
            save_run_info(directory)
        steps += 1
        profiler(done)
        if on_step is not None:
            on_step(done)

    def ignore(done: int) -> None:
        pass

    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_run_directory(directory))
        profiler: Callable[[int], None] = ignore
        if profile is not None and is_main_process:
            profiler = stack.enter_context(profile_steps(directory / PROFILE_NAME, profile))
        # A changed configuration is named before the data, which may have changed with it.
        init_run_directory(config, directory)
        init_run_data(directory, [train_split, *(test or ())])
        state = loop.train_loop(
            config,
            train_split,
            directory,
            initialize=_backbone_loader(weights, config, console) if weights else None,
            evaluate=evaluate_checkpoint if test else None,
            console=console,
            on_step=count_step,
        )
        end_on_sigterm()
        if profile is not None:
            console.print(
                f"The profile of {min(profile, steps - WARM_UP)} steps is in "
                f"{directory / PROFILE_NAME}"
                if steps > WARM_UP
                else f"No profile was recorded: only {steps} steps were left, and recording starts "
                f"after {WARM_UP}.",
                highlight=False,
                markup=False,
            )
        if test is None:
            console.print(
                f"{train_split.dataset} has no query and gallery images: nothing was evaluated.",
                highlight=False,
            )
        else:
            if result is None:  # The run was complete before.
                result = measure({"params": state.params, "batch_stats": state.batch_stats})
            result = replace(result, step=str(int(state.step)))
            if is_main_process:
                write_text(directory / "result.json", result.to_json())
            others = rank_baselines(*test) if baselines and is_main_process else None
            print_results([result], paper, baselines=others, console=console)
        if figures:
            # Imports matplotlib, which few runs need.
            from rmgl_jax.report.page import write_report

            report = write_report(
                directory, data_dir=None if data_dir is None else Path(data_dir), figures=True
            )
            console.print(f"The report is in {report}", highlight=False, markup=False)
        console.print(f"Everything of this run is in {directory}", highlight=False)
    return result


def describe_weights(weights: AnyPath | None) -> str:
    """Name and digest of a weights file, as a configuration records it; "none" without one.

    Raises:
        MissingFileError: there is no such file.
    """
    if weights is None:
        return "none"
    check_local("--weights", weights)
    path = expand(weights)
    if not path.is_file():
        raise MissingFileError(f"There is no weights file {path}.")
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def rank_baselines(query: Split, gallery: Split) -> dict[str, RankMetrics]:
    """Retrieval by raw pixels and by color histograms, without a network."""
    identities = (query.pids, query.camids, gallery.pids, gallery.camids)
    methods: dict[str, Callable[[Images], np.ndarray]] = {
        "raw pixels": pixel_embedding,
        "color histograms": color_histogram_embedding,
    }
    return {
        name: rank_features(extract(query.images), extract(gallery.images), *identities)
        for name, extract in methods.items()
    }


def _check_workdir(workdir: AnyPath) -> Path:
    name = os.fspath(workdir)
    if not name.strip():
        raise InputError(f"--workdir must be the path of a directory, got {name!r}.")
    check_local("--workdir", name)
    directory = expand(name)
    check_path(directory)
    return directory


def _backbone_loader(
    weights: AnyPath, config: ExperimentConfig, console: Console
) -> loop.Initialize:
    def initialize(variables: dict[str, Any]) -> dict[str, Any]:
        if console.quiet and jax.process_index() == 0:  # Without a console they stay warnings.
            return load_backbone(weights, variables, config.model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            variables = load_backbone(weights, variables, config.model)
        for warning in caught:
            console.print(f"Note: {warning.message}", highlight=False, markup=False)
        return variables

    return initialize


def _describe(config: ExperimentConfig, train: Split, test: QueryAndGallery | None) -> str:
    devices = jax.devices()
    counts = f"train {len(train.pids):,} images of {train.num_classes:,} identities"
    if test is not None:
        counts += f", query {len(test[0].pids):,}, gallery {len(test[1].pids):,}"
    return (
        f"{train.dataset} {train.version}: {counts} at "
        f"{config.model.image_size[0]}x{config.model.image_size[1]}; "
        f"backbone from {config.pretrained}; {len(devices)} x {devices[0].device_kind}, "
        f"seed {config.train.seed}"
    )
