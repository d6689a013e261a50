"""Sweeps: plans, runs, tables, figures and statistics."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_prep.errors import ExpectedError, InputError, MissingFileError
from rmgl_jax import checked_json
from rmgl_jax.evaluation.ranking import RankMetrics
from rmgl_jax.evaluation.result import EvaluationResult, Reranked
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.figure import curves
from rmgl_jax.experiment.options import DataOptions, SweepOptions
from rmgl_jax.experiment.results import Row, Sweep, numbers, welch_test
from rmgl_jax.experiment.run import describe_weights
from rmgl_jax.experiment.splits import load_train_and_test
from rmgl_jax.experiment.sweep import run_sweep
from rmgl_jax.experiment.table import Grid, to_rich
from rmgl_jax.training.run_data import DATA_NAME, describe_data
from rmgl_jax.training.run_directory import init_run_directory
from tests.tiny_trees import prepare_partial, write_images, write_market

BASE = presets.tiny("market1501")


def with_margin(margin):
    return lambda base: replace(base, loss=replace(base.loss, margin=margin))


def with_four_stripes(base):
    return replace(base, model=replace(base.model, granularities=(4,)))


TABLE = Sweep(
    name="table0",
    title="A table",
    presets={"tiny": BASE},
    rows=(
        Row("plain", with_margin(0.6), numbers({"market1501": (50.0, 60.0)})),
        Row("soft", with_margin(None), baseline="plain"),
        Row("wide", with_margin(1.2), baseline="plain"),
    ),
    published={
        "Other": numbers({"market1501": (40.0, 45.5), "market1501 re-ranked": (70.0, 71.0)})
    },
)
# rank-1 and mAP of each row's seeds 0, 1 and 2; the official mAP is 2 less than the other.
FOUND = {
    "plain": [(62.0, 51.0), (64.0, 53.0), (66.0, 55.0)],
    "soft": [(60.0, 52.0), (66.0, 52.5), (63.0, 53.0)],
    "wide": [(82.0, 71.0), (84.0, 73.0), (86.0, 75.0)],
}


def result(rank_1, mean_ap, reranked=None, dataset="market1501"):
    def metrics(first, mean):
        return RankMetrics(
            cmc=np.array([first, 1.0]),
            mean_ap=mean,
            mean_ap_official=mean - 0.02,
            mean_inp=0.1,
            n_valid_queries=1,
            ap=np.array([mean]),
            ap_official=np.array([mean]),
            inp=np.array([0.1]),
            first_match_rank=np.array([1]),
        )

    again = reranked and Reranked(metrics(*reranked), 20, 6, 0.3)
    return EvaluationResult(
        dataset=dataset,
        version="1.0.0",
        n_query=1,
        n_gallery=15_913,
        n_ids=1,
        flipped=True,
        same_camera_rule=True,
        plain=metrics(rank_1, mean_ap),
        reranked=again,
    )


class Runs:
    """Stands in for training: writes the files that a run writes."""

    def __init__(self, failing=(), reranked=False):
        self.done, self.failing, self.reranked = [], failing, reranked
        self.papers = []

    def __call__(self, planned, options, console):
        row, seed = planned.row.name, planned.config.train.seed
        assert planned.directory == options.workdir / row / f"seed{seed}"
        if (row, seed) in self.failing:
            raise self.failing[row, seed]
        self.done.append((row, seed))
        self.papers.append(planned.paper)
        assert planned.config.pretrained == describe_weights(options.weights)
        start(planned.config, planned.directory)
        rank_1, mean_ap = FOUND[row][seed]
        again = (0.9, 0.8) if self.reranked else None
        found = result(rank_1 / 100, mean_ap / 100, again, planned.config.dataset)
        planned.result.write_text(found.to_json())


def start(config, directory):
    """Writes the files of a run that has begun; the number of identities comes from the data."""
    model = replace(config.model, num_classes=16)
    init_run_directory(replace(config, model=model), directory)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A tiny Market-1501, and own images with and without a test set."""
    root = tmp_path_factory.mktemp("data")
    prepare_partial("market1501", write_market(root / "market"), root / "tfds")
    for split in ("train", "query", "gallery"):
        write_images(root / "own" / split, ["1_c1_a.png", "2_c2_b.png"])
    prepare_partial("folder/own", root / "own", root / "tfds")
    write_images(root / "train_only" / "train", ["1_a.png", "2_a.png"])
    prepare_partial("folder/train_only", root / "train_only", root / "tfds")
    return root / "tfds"


@pytest.fixture
def options(tmp_path, data_dir):
    data = DataOptions(data_dir=data_dir, allow_partial=True)
    return SweepOptions(BASE, tmp_path / "sweep", preset="tiny", data=data)


def do(table, options, runs=None):
    """What is printed, and the Markdown file."""
    console = Console(file=io.StringIO(), width=200)
    run_sweep(table, options, console, runs or Runs())
    file = options.workdir / f"{table.name}.md"
    return console.file.getvalue(), file.read_text() if file.exists() else ""


def cells(markdown, row):
    lines = (line for line in markdown.splitlines() if line.startswith(f"| {row} | "))
    line = next(lines)  # The rows' differences are below.
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# Runs


def test_run_sweep_runs_all_rows_seed_by_seed(options):
    runs = Runs()
    do(TABLE, replace(options, seeds=2), runs)
    names = ("plain", "soft", "wide")
    assert runs.done == [(name, seed) for seed in (0, 1) for name in names]
    stored = json.loads((options.workdir / "soft" / "seed1" / "config.json").read_text())
    assert stored["train"]["seed"] == 1
    assert stored["loss"]["margin"] is None
    assert stored["model"]["width"] == BASE.model.width


def test_run_sweep_seeds_start_from_the_base(options):
    runs = Runs()
    base = replace(BASE, train=replace(BASE.train, seed=1))
    do(TABLE, replace(options, experiment=base, seeds=2, rows=("plain",)), runs)
    assert runs.done == [("plain", 1), ("plain", 2)]


def test_run_sweep_skips_finished_runs(options, tmp_path):
    do(TABLE, replace(options, rows=("plain",)))
    again = Runs()
    do(TABLE, options, again)
    assert again.done == [("soft", 0), ("wide", 0)]
    # Nothing is left to run, so the data is not needed.
    elsewhere = replace(options, data=DataOptions(data_dir=tmp_path / "empty"))
    printed, _ = do(TABLE, elsewhere, nothing := Runs())
    assert nothing.done == []
    assert printed.count("done before") == 3


def test_run_sweep_resumes(options):
    stopped = Runs(failing={("soft", 0): SystemExit(143)})
    with pytest.raises(SystemExit):
        do(TABLE, options, stopped)
    assert stopped.done == [("plain", 0)]
    # What was begun has a configuration, but no result.
    begun = options.workdir / "soft" / "seed0"
    start(with_margin(None)(BASE), begun)
    again = Runs()
    do(TABLE, options, again)
    assert again.done == [("soft", 0), ("wide", 0)]


def test_run_sweep_requires_weights_of_a_full_network_before_the_first_run(options):
    model = replace(options.experiment.model, depth=(3, 4, 6, 3), width=64)
    full = replace(options, experiment=replace(options.experiment, model=model))
    runs = Runs()
    with pytest.raises(InputError, match="--weights"):
        do(TABLE, full, runs)
    assert runs.done == []
    do(TABLE, replace(full, from_scratch=True), runs)
    assert {name for name, _ in runs.done} == {row.name for row in TABLE.rows}


def test_run_sweep_names_failed_rows_after_running_the_others(options):
    failing = {("soft", 0): RuntimeError("The loss is NaN."), ("plain", 1): OSError("disk full")}
    runs = Runs(failing)
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(ExpectedError, match="2 without a result") as caught:
        run_sweep(TABLE, replace(options, seeds=2), console, runs)
    assert "soft, seed 0: RuntimeError: The loss is NaN." in str(caught.value)
    assert "plain, seed 1: OSError: disk full" in str(caught.value)
    assert runs.done == [("plain", 0), ("wide", 0), ("soft", 1), ("wide", 1)]
    assert "A table: market1501" in console.file.getvalue()


def test_run_sweep_names_impossible_rows(options):
    table = replace(TABLE, rows=(*TABLE.rows, Row("four", with_four_stripes)))
    runs = Runs()
    with pytest.raises(ExpectedError, match=r"four is not possible .*\b4\b.*\b6\b"):
        do(table, options, runs)
    assert runs.done == [("plain", 0), ("soft", 0), ("wide", 0)]
    _, markdown = do(table, replace(options, only_draw=True))
    assert "Not run: four." in markdown


def test_run_sweep_reports_problems_of_the_data_once(options, tmp_path):
    missing = replace(options, data=DataOptions(data_dir=tmp_path / "empty"))
    with pytest.raises(MissingFileError, match="market1501"):
        do(TABLE, missing, runs := Runs())
    train_only = replace(options, experiment=replace(BASE, dataset="folder/train_only"))
    with pytest.raises(InputError, match="folder/train_only has no query and gallery"):
        do(TABLE, train_only, runs)
    assert runs.done == []


@pytest.mark.parametrize("only_draw", [False, True])
def test_run_sweep_rejects_runs_of_another_configuration(options, only_draw):
    do(TABLE, options)
    changed = replace(BASE, optimizer=replace(BASE.optimizer, momentum=0.8))
    runs = Runs()
    with pytest.raises(InputError, match=r"plain.seed0 holds .*optimizer.momentum was 0.9, is now"):
        do(TABLE, replace(options, experiment=changed, only_draw=only_draw), runs)
    assert runs.done == []


def test_run_sweep_rejects_other_seeds_of_another_configuration_before_the_first_run(options):
    """The table would show them, too."""
    do(TABLE, options)
    train = replace(BASE.train, seed=7, epochs=BASE.train.epochs + 1)
    runs = Runs()
    with pytest.raises(InputError, match=r"train\.epochs"):
        do(TABLE, replace(options, experiment=replace(BASE, train=train)), runs)
    assert runs.done == []


def test_run_sweep_rejects_unfinished_runs_of_another_configuration(options):
    """Unless they have not begun: nothing is lost then."""
    directory = options.workdir / "wide" / "seed0"
    init_run_directory(BASE, directory)
    do(TABLE, replace(options, rows=("wide",)), runs := Runs())
    assert runs.done == [("wide", 0)]
    shutil.rmtree(directory)
    init_run_directory(BASE, directory)
    (directory / "run.json").write_text("{}")
    runs = Runs()
    with pytest.raises(InputError, match=r"loss.margin was 0.6, is now 1.2"):
        do(TABLE, options, runs)
    assert runs.done == []


def test_run_sweep_distinguishes_weights(options, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"some")
    do(TABLE, replace(options, weights=weights, rows=("plain",)))
    do(TABLE, replace(options, weights=weights, rows=("plain",)), nothing := Runs())
    assert nothing.done == []
    renamed = weights.rename(tmp_path / "renamed.pth")
    do(TABLE, replace(options, weights=renamed, rows=("plain", "wide")), again := Runs())
    assert again.done == [("wide", 0)]
    with pytest.raises(InputError, match=r"pretrained was weights.pth sha256:\w+, is now none"):
        do(TABLE, options)
    # To draw they need not be there, but all rows must have started from the same.
    renamed.unlink()
    _, markdown = do(TABLE, replace(options, only_draw=True))
    assert cells(markdown, "plain")[1] == "62.00"
    start(with_margin(None)(BASE), directory := options.workdir / "soft" / "seed0")
    (directory / "result.json").write_text(result(0.6, 0.5).to_json())
    with pytest.raises(InputError, match=r"started from different weights: .*\.pth .*, none \("):
        do(TABLE, replace(options, only_draw=True))


def test_run_sweep_rejects_runs_on_other_data(options):
    """Neither are new rows trained on other data than the finished ones, nor are they mixed."""
    do(TABLE, replace(options, rows=("plain",)))
    record = options.workdir / "plain" / "seed0" / DATA_NAME
    train_split, test = load_train_and_test(
        "market1501", BASE.model.image_size, data_dir=options.data.data_dir, allow_partial=True
    )
    mine = describe_data([train_split, *test])
    checked_json.write(record, mine | {"query": "abc"})
    with pytest.raises(InputError, match=f"plain.seed0 .*query was abc, is now {mine['query']}"):
        do(TABLE, options, runs := Runs())
    assert runs.done == []
    checked_json.write(record, mine)
    do(TABLE, options, runs)
    assert runs.done == [("soft", 0), ("wide", 0)]
    checked_json.write(options.workdir / "wide" / "seed0" / DATA_NAME, mine | {"train": "abc"})
    with pytest.raises(InputError, match=f"plain.* wide.* train was {mine['train']}, is now abc"):
        do(TABLE, replace(options, only_draw=True))
    record.write_text("{")
    with pytest.raises(InputError, match=str(record)):
        do(TABLE, options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rows": ("hard", "soft")}, "has no row hard; .* plain, soft, wide"),
        ({"seeds": 0}, r"--seeds .* 1 .*, got 0"),
    ],
)
def test_run_sweep_rejects_options(options, change, match):
    with pytest.raises(InputError, match=match):
        do(TABLE, replace(options, **change))


def test_run_sweep_names_damaged_results(options):
    do(TABLE, options)
    path = options.workdir / "soft" / "seed0" / "result.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(InputError, match=r"soft.seed0.result.json is damaged"):
        do(TABLE, options)


def test_sweep_rejects_contradictions():
    row = TABLE.rows[0]
    with pytest.raises(ValueError, match="same name"):
        replace(TABLE, rows=(row, row))
    with pytest.raises(ValueError, match=r"no row for the baselines \{'plain'\}"):
        replace(TABLE, rows=TABLE.rows[1:])


# Tables and figures


def test_table_with_one_seed(options):
    printed, markdown = do(TABLE, options)
    assert cells(markdown, "plain")[:5] == ["1", "62.00", "60.0", "+2.00", "51.00"]
    assert cells(markdown, "plain")[5:] == ["49.00", "50.0", "+1.00"]
    assert cells(markdown, "Other (published)") == [*"––", "45.5", *"–––", "40.0", "–"]
    assert cells(markdown, "Other re-ranked (published)")[2] == "71.0"
    soft = next(line for line in markdown.splitlines() if line.startswith("| soft | plain"))
    assert soft == "| soft | plain | -2.00 (one seed: no claim) | +1.00 (one seed: no claim) |"
    assert "significant (p" not in printed


def test_table_with_three_seeds(options):
    _, markdown = do(TABLE, replace(options, seeds=3))
    # Means and standard deviations (n - 1) by hand: 62, 64, 66 and 51, 53, 55.
    assert cells(markdown, "plain")[:5] == ["3", "64.00 ± 2.00", "60.0", "+4.00", "53.00 ± 2.00"]
    assert cells(markdown, "plain")[5:] == ["51.00 ± 2.00", "50.0", "+3.00"]
    assert cells(markdown, "wide")[2:4] == ["–", "–"]
    lines = markdown.splitlines()
    (soft,) = (line for line in lines if line.startswith("| soft | plain"))
    # t = -1 / sqrt(4 / 3 + 9 / 3) with 3.48 degrees of freedom.
    assert "-1.00 (not significant, p 0.660)" in soft
    (wide,) = (line for line in lines if line.startswith("| wide | plain"))
    # t = 20 / sqrt(4 / 3 + 4 / 3) with 4 degrees of freedom.
    assert wide.count("+20.00 (significant, p < 0.001)") == 2


def test_table_uses_only_results_and_configurations(options):
    do(TABLE, replace(options, seeds=3))
    _, before = do(TABLE, replace(options, seeds=3))
    for path in options.workdir.rglob("*"):
        if path.is_file() and path.name not in ("result.json", "config.json"):
            path.unlink()
    # All seeds that are there, however many are asked for.
    _, after = do(TABLE, replace(options, only_draw=True), nothing := Runs())
    assert after == before
    assert nothing.done == []


def test_table_names_rows_of_another_budget(options):
    def longer(base):
        return replace(base, train=replace(base.train, epochs=80, num_ids=6))

    plain, _, wide = TABLE.rows
    _, markdown = do(replace(TABLE, rows=(plain, replace(wide, overrides=longer))), options)
    (note,) = [line for line in markdown.splitlines() if "80 epochs of batches of 6 x 4" in line]
    assert "wide" in note
    assert "plain" not in note


def test_table_names_missing_rows(options):
    do(TABLE, replace(options, rows=("soft",)))
    _, markdown = do(TABLE, replace(options, only_draw=True))
    assert "Not run: plain, wide." in markdown
    assert cells(markdown, "wide")[0] == "–"
    assert "| soft | plain" not in markdown
    _, markdown = do(TABLE, replace(options, only_draw=True, rows=("soft",)))
    assert "Not selected: plain, wide." in markdown


def test_table_without_results(options):
    printed, markdown = do(TABLE, replace(options, only_draw=True))
    assert "No run has finished yet" in printed
    assert markdown == ""


def test_table_shows_published_numbers_of_its_dataset_only(options):
    other = replace(BASE, dataset="folder/own")
    runs = Runs()
    printed, markdown = do(TABLE, replace(options, experiment=other), runs)
    assert "paper |" not in markdown
    assert "Other" not in markdown
    assert cells(markdown, "plain") == ["1", "62.00", "51.00", "49.00"]
    assert "The paper has numbers of market1501 only, not of folder/own." in printed
    assert runs.papers == [{}, {}, {}]


def test_table_shows_reranked_results_in_their_own_line(options):
    row = replace(
        TABLE.rows[0], paper=numbers({"market1501": (50, 60), "market1501 re-ranked": (85, 88)})
    )
    runs = Runs(reranked=True)
    _, markdown = do(replace(TABLE, rows=(row,)), options, runs)
    assert cells(markdown, "plain re-ranked")[:5] == ["1", "90.00", "88.0", "+2.00", "80.00"]
    assert cells(markdown, "plain re-ranked")[6:] == ["85.0", "-5.00"]
    assert runs.papers == [row.paper]


def test_table_on_80_columns_shows_every_name_and_number():
    header = ("", "n", "rank-1", "rank-1 paper", "ours - paper")
    header += ("mAP (step)", "mAP (official)", "mAP paper", "ours - paper")
    measured = ("60.12 ± 0.63", "95.0", "-34.88", "37.29 ± 1.37", "35.84 ± 1.33", "85.6", "-48.31")
    names = "2-stripe", "2+3-stripe+RP+ABP+RSA, triplets of reduced features"
    console = Console(file=io.StringIO(), width=80)
    console.print(to_rich(Grid("", header, tuple((name, "3", *measured) for name in names))))
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    for number in " ".join(measured).split():
        assert printed.count(number) >= len(names)
    assert "".join(names).replace(" ", "") in "".join(
        line[1:22].replace(" ", "") for line in printed.splitlines()
    )


def test_figure_is_drawn_from_the_results(options):
    places = zip(TABLE.rows, (0.6, 0.9, 1.2), strict=True)
    rows = [replace(row, points={"margin": x}) for row, x in places]
    figure = replace(TABLE, rows=tuple(rows), x_label="margin")
    do(figure, replace(options, seeds=2))
    path = options.workdir / "table0.png"
    with Image.open(path) as image:
        assert image.size == (1350, 540)
        pixels = np.asarray(image.convert("RGB"))
    # Another result gives another picture, from the files alone.
    (options.workdir / "wide" / "seed0" / "result.json").write_text(result(0.1, 0.1).to_json())
    path.unlink()
    do(figure, replace(options, only_draw=True))
    with Image.open(path) as image:
        assert (np.asarray(image.convert("RGB")) != pixels).any()
    # Names on the axis instead of numbers, and a row that is not run.
    rows[1] = replace(rows[1], points={"margin": "soft"})
    lacking = replace(figure, rows=(*rows, replace(rows[1], name="other")))
    do(lacking, replace(options, only_draw=True))
    assert not list(options.workdir.glob(".*"))


def test_curves_of_a_figure():
    def percent(*pairs):
        return [result(rank_1 / 100, mean_ap / 100) for rank_1, mean_ap in pairs]

    paper = numbers({"market1501": (50.0, 60.0), "dukemtmc_reid": (1.0, 2.0)})
    change = TABLE.rows[0].overrides
    results = {
        Row("late", change, points={"a": 0.9}): percent((70, 40)),
        Row("both", change, paper, points={"a": 0.5, "b": 0.7}): percent((62, 51), (66, 55)),
        Row("lacking", change, paper, points={"b": 0.1}): [],
    }
    found = curves(results, "market1501", "rank-1")
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(found["a"].ours, [(0.5, 64, 8**0.5), (0.9, 70, 0)])
    np.testing.assert_allclose(found["b"].ours, [(0.7, 64, 8**0.5)])
    assert (found["a"].paper, found["b"].paper) == (((0.5, 60.0),), ((0.1, 60.0), (0.7, 60.0)))
    found = curves(results, "market1501", "mAP (step)")
    np.testing.assert_allclose(found["a"].ours, [(0.5, 53, 8**0.5), (0.9, 40, 0)])
    assert found["a"].paper == ((0.5, 50.0),)
    assert curves(results, "synthetic/demo", "rank-1")["a"].paper == ()
    # Names stand in the order of the rows.
    named = {
        replace(row, points={"c": x}): runs
        for x, (row, runs) in zip(("soft", 0.5, 0.1), results.items(), strict=True)
    }
    found = curves(named, "market1501", "rank-1")["c"]
    np.testing.assert_allclose(found.ours, [(0, 70, 0), (1, 64, 8**0.5)])
    assert found.paper == ((1.0, 60.0), (2.0, 60.0))


# Statistics


@pytest.mark.parametrize(
    ("mine", "other", "p"),
    [
        # Two-sided, t = 5 / sqrt(1 / 3 + 1 / 3) = 6.124 with 4 degrees of freedom.
        ([6.0, 7.0, 8.0], [1.0, 2.0, 3.0], 0.0036),
        # Unequal variances: t = 2.335 with 2.42 degrees of freedom, not 4 (p 0.080).
        ([6.0, 7.0, 8.0], [0.0, 2.0, 6.0], 0.1223),
        ([6.0, 7.0], [6.0, 7.0], 1.0),
    ],
)
def test_welch_test_against_hand_values(mine, other, p):
    found = welch_test(np.array(mine), np.array(other))
    np.testing.assert_allclose(found, p, atol=1e-4)
    np.testing.assert_allclose(welch_test(np.array(other), np.array(mine)), found)


def test_welch_test_without_spread_is_none():
    assert welch_test(np.array([1.0]), np.array([2.0, 3.0])) is None
    assert welch_test(np.array([2.0, 2.0]), np.array([3.0, 3.0])) is None
    # One side alone without spread is allowed: t = 2 with one degree of freedom.
    half = welch_test(np.array([2.0, 2.0]), np.array([3.0, 5.0]))
    np.testing.assert_allclose(half, 0.2951672353008665, rtol=1e-6)
