"""Command lines: presets, options, help, and the messages of wrong ones."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from data_prep.errors import InputError
from experiments import market_rmgl, table5_components
from rmgl_jax.config import EvalConfig
from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.initial_weights import check_initial_weights
from rmgl_jax.experiment.options import (
    CrossDatasetOptions,
    DataOptions,
    EvaluateOptions,
    RunOptions,
    SweepOptions,
    find_value,
    parse_cross_dataset,
    parse_evaluate,
    parse_run,
    parse_sweep,
)
from rmgl_jax.experiment.presets import presets_for

FIXED = {"--model.num-classes", "--pretrained"}


def parse_market(*arguments):
    return parse_run(market_rmgl.PRESETS, "", arguments)


# Presets


@pytest.mark.parametrize("name", ["market", "duke", "cuhk03", "msmt17", "folder", "synthetic"])
def test_run_card_lists_and_accepts_its_presets(name):
    module = importlib.import_module(f"experiments.{name}_rmgl")
    listed = module.__doc__.partition("Presets")[2]
    for preset, config in module.PRESETS.items():
        found = parse_run(module.PRESETS, module.__doc__, ["--preset", preset])
        assert found.experiment == config
        assert preset in found.workdir
        assert re.search(rf"^  .*\b{preset}\b", listed, re.MULTILINE), preset
    assert parse_run(module.PRESETS, "", []).preset == next(iter(module.PRESETS))


def test_options_change_the_preset():
    found = parse_market("--preset=cpu", "--train.seed=5", "--loss.margin=None").experiment
    assert (found.train.seed, found.loss.margin) == (5, None)
    assert found.model == market_rmgl.PRESETS["cpu"].model


def test_published_networks_start_from_weights_or_from_none_on_purpose():
    for preset, config in presets_for("market1501").items():
        if preset == "cpu" or preset.endswith("_cpu"):
            check_initial_weights(config, None, False)
            continue
        with pytest.raises(InputError, match=r"\(3, 4, 6, 3\).*--weights .*--from-scratch"):
            check_initial_weights(config, None, False)
        check_initial_weights(config, None, True)
        check_initial_weights(config, "resnet50.pth", False)
    with pytest.raises(InputError, match=r"--from-scratch .*resnet50\.pth"):
        check_initial_weights(config, "resnet50.pth", True)


def test_random_weights_are_not_frozen():
    for config in presets_for("market1501").values():
        frozen = dataclasses.replace(
            config, optimizer=dataclasses.replace(config.optimizer, frozen_until="res2")
        )
        check_initial_weights(frozen, "resnet50.pth", False)
        for from_scratch in (False, True):
            with pytest.raises(InputError):
                check_initial_weights(frozen, None, from_scratch)


def test_presets_for_keeps_the_dataset_named():
    for dataset in ("market1501", "msmt17/trainval", "folder/own", "synthetic/tiny"):
        assert {config.dataset for config in presets_for(dataset).values()} == {dataset}
    assert next(iter(presets_for("synthetic/tiny"))) == "tiny"
    assert {name: config.dataset for name, config in presets_for("synthetic").items()} == {
        "demo": "synthetic/demo",
        "tiny": "synthetic/tiny",
        "mgn": "synthetic/demo",
        "pcb": "synthetic/demo",
        "paper": "synthetic/full",
        "cpu_pretrained": "synthetic/full",
    }
    epochs = [presets_for(name)["cpu"].train.epochs for name in ("market1501", "msmt17/train")]
    assert epochs == [24, 15]


@pytest.mark.parametrize("arguments", [["--preset", "huge"], ["--preset=huge"], ["--preset"]])
def test_unknown_preset(arguments):
    listed = "paper, gpu, cpu, cpu_pretrained, mgn, pcb, mgn_cpu"
    with pytest.raises(InputError, match=rf"'(huge)?'.* {listed}"):
        parse_market(*arguments)


def test_find_value_takes_the_last():
    assert find_value(["--preset", "a", "--preset=b"], "--preset", "c") == "b"
    assert find_value(["--presets", "a"], "--preset", "c") == "c"


# Options


@pytest.mark.parametrize("spelling", ["--data-dir", "--data_dir"])
def test_run_options(spelling):
    found = parse_market(spelling, "d", "--source", "s", "--weights", "w", "--debug")
    assert found.data == DataOptions(source=Path("s"), data_dir=Path("d"))
    assert (found.weights, found.debug) == (Path("w"), True)


def test_sweep_options():
    sweep = table5_components.SWEEP
    found = parse_sweep(sweep, "", ["--seeds", "3", "--rows", "2-stripe", "3-stripe"])
    assert (found.preset, found.seeds, found.rows) == ("paper", 3, ("2-stripe", "3-stripe"))
    assert found.workdir == Path("runs/table5_components_market1501_paper")
    for spelling in ("--only_draw", "--only-draw"):
        assert parse_sweep(sweep, "", [spelling]).only_draw
    found = parse_sweep(sweep, "", ["--preset=demo", "--train.epochs", "2", "--workdir", "here"])
    assert (found.experiment.dataset, found.experiment.train.epochs) == ("synthetic/demo", 2)
    assert found.workdir == Path("here")
    found = parse_sweep(sweep, "", ["--dataset", "cuhk03_np/labeled"])
    assert found.workdir == Path("runs/table5_components_cuhk03_np_labeled_paper")
    found = parse_sweep(sweep, "", ["--workdir", "runs/table5_components"])
    assert found.workdir == Path("runs/table5_components")


def test_default_directory_of_a_run_names_the_dataset_that_is_trained():
    assert parse_market("--preset=cpu").workdir == "runs/market1501_cpu"
    found = parse_market("--preset=cpu", "--dataset", "cuhk03_np/labeled")
    assert found.workdir == "runs/cuhk03_np_labeled_cpu"
    assert parse_market("--workdir", "here").workdir == "here"


def test_evaluate_options():
    command = "--checkpoint a --dataset folder/b --data-dir c --best --no-flip --rerank --k1 7"
    command += " --query_expansion --roc --output d.json --batch-size 4"
    found = parse_evaluate("", command.split())
    assert parse_evaluate("", command.split()[1:]) == found  # The checkpoint without its option.
    assert found == EvaluateOptions(
        checkpoint=Path("a"),
        dataset="folder/b",
        data=DataOptions(data_dir=Path("c")),
        best=True,
        settings=EvalConfig(flip=False, rerank=True, k1=7, batch_size=4),
        query_expansion=True,
        roc=True,
        output=Path("d.json"),
    )
    assert parse_cross_dataset("", ["--checkpoint", "a", "b", "--no_flip"]) == CrossDatasetOptions(
        checkpoint=(Path("a"), Path("b")), settings=EvalConfig(flip=False)
    )


def test_required_options(capsys):
    with pytest.raises(SystemExit):
        parse_evaluate("", [])
    assert {"--checkpoint", "--dataset"} == set(re.findall("--[a-z]+", capsys.readouterr().err)) - {
        "--help"
    }


@pytest.mark.parametrize("option", sorted(FIXED))
def test_values_that_are_filled_in_are_not_options(option, capsys):
    for parse in (parse_market, lambda *a: parse_sweep(table5_components.SWEEP, "", a)):
        with pytest.raises(SystemExit):
            parse(option, "3")
        assert option in capsys.readouterr().err


def test_impossible_value(capsys):
    with pytest.raises(SystemExit):
        parse_market("--train.num-ids", "0")
    printed = capsys.readouterr().err
    assert "num_ids" in printed
    assert "got 0" in printed


@pytest.mark.parametrize("option", ["--train.seed", "--train.epochs", "--eval.k1"])
def test_numbers_beyond_32_bits_are_refused(option, capsys):
    for value in (2**32, 10**30):
        with pytest.raises(SystemExit):
            parse_market(option, str(value))
        assert f"got {value}" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_coordinator_without_enabled_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse_market("--distributed.coordinator", "host:1234")
    assert "requires --distributed.enabled" in " ".join(capsys.readouterr().err.split())


# Help


def shown(parse, capsys, monkeypatch, option):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        parse(option)
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def documented(kind, prefix=""):
    """Every option of a dataclass with the text under its field in the source."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    texts = {
        field.target.id: ast.literal_eval(text.value)
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            inner = "" if field.name in ("experiment", "data") else f"{prefix}{field.name}."
            yield from documented(hints[field.name], inner)
        else:
            yield f"--{prefix}{field.name}".replace("_", "-"), texts.get(field.name, "")


@pytest.mark.parametrize("kind", [RunOptions, SweepOptions])
def test_help_all_shows_every_option_with_its_meaning(kind, capsys, monkeypatch):
    parse = {
        RunOptions: lambda *a: parse_run(market_rmgl.PRESETS, market_rmgl.__doc__, a),
        SweepOptions: lambda *a: parse_sweep(table5_components.SWEEP, market_rmgl.__doc__, a),
    }[kind]
    text = shown(parse, capsys, monkeypatch, "--help-all")
    expected = {name: text for name, text in documented(kind) if name not in FIXED}
    assert len(expected) > 70
    for option, meaning in expected.items():
        assert f" {option} " in text or f" {option}, " in text, option
        assert len(meaning) > 10, f"{option} has no text"
        assert " ".join(meaning.split()) in text, option
    assert not any(option in text for option in FIXED)
    assert "rank-1 96.2, mAP 90.0" in text


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_the_first_options(option, capsys, monkeypatch):
    text = shown(parse_market, capsys, monkeypatch, option)
    assert "usage: python -m experiments." in text
    first = {"preset", "dataset", "source", "data-dir", "workdir", "weights", "from-scratch"}
    first |= {"figures", "debug"}
    first |= {"train.epochs", "train.num-ids", "train.num-instances", "train.seed"}
    assert set(re.findall(r" --(?!no-)([a-z][a-z.-]*)", text)) - {"help", "help-all"} == first
    text = shown(
        lambda *a: parse_sweep(table5_components.SWEEP, "", a), capsys, monkeypatch, option
    )
    assert {"seeds", "rows", "only-draw"} < set(re.findall(r" --([a-z][a-z.-]*)", text))
    assert "--model" not in text


# Main functions


def test_run_main_prints_expected_errors_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(market_rmgl.PRESETS, {}, "", ["--preset", "huge"])
    assert ended.value.code == 1
    assert "'huge'" in capsys.readouterr().out
    with pytest.raises(InputError, match="huge"):
        run_main(market_rmgl.PRESETS, {}, "", ["--preset", "huge", "--debug"])


PROGRAM = """
from experiments import market_rmgl, table5_components as table5
from rmgl_jax.experiment import command_line, evaluate_command, train_command
calls = [
    lambda *a: command_line.run_main(market_rmgl.PRESETS, {}, "", ["--workdir", "", *a]),
    lambda *a: command_line.sweep_main(table5.SWEEP, "", ["--rows", "2-stripe", "none", *a]),
    lambda *a: train_command.main(["--weights", "none.pth", *a]),
    lambda *a: evaluate_command.main(["none.safetensors", "--dataset", "folder/a", *a]),
    lambda *a: command_line.cross_dataset_main({}, "", ["--checkpoint", "none.safetensors", *a]),
]
for call in calls:
    try:
        call()
    except SystemExit as ended:
        print("status", ended.code)
    try:
        call("--debug")
    except Exception as error:
        print("raised", type(error).__name__)
"""


def test_main_functions_end_with_one_line(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        # The run cards are not installed.
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("status")] == ["status 1"] * 5
    raised = [line.partition(" ")[2] for line in lines if line.startswith("raised")]
    assert raised == ["InputError"] * 2 + ["MissingFileError"] * 3
    text = " ".join(lines)
    for part in ("--workdir must be", "no row none; its rows are 2-stripe,", "none.pth"):
        assert part in text
    assert "Traceback" not in ended.stdout + ended.stderr
