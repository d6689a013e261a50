"""Cross-dataset evaluation: one model on all prepared datasets (Table IV)."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from data_prep.errors import ExpectedError, InputError
from experiments.table4_cross_dataset import OTHERS, PAPER
from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.experiment.cross_dataset import evaluate_all, list_prepared
from rmgl_jax.experiment.cross_dataset_matrix import matrix
from rmgl_jax.experiment.options import CrossDatasetOptions
from tests.tiny_trees import prepare_partial, write_images, write_market
from tests.trained_run import write_run

pytestmark = pytest.mark.network

SETS = ["dukemtmc_reid", "market1501", "folder/own"]
PUBLISHED = {"paper": PAPER, **OTHERS}
FILES = [f"market1501-to-{name}.json" for name in ("dukemtmc_reid", "folder_own", "market1501")]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "market"
    write_run(workdir, "market1501", {3: 0.5, 6: 0.4})
    return workdir


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Three prepared datasets, and directories that are none."""
    root = tmp_path_factory.mktemp("data")
    prepare_partial("market1501", write_market(root / "market"), root / "tfds")
    # Duke's names have frames where Market-1501's have sequences.
    for split, names in {
        "bounding_box_train": ["0002_c1_f0046182.jpg"],
        "query": ["0005_c2_f0046985.jpg", "0006_c1_f0046985.jpg"],
        "bounding_box_test": ["0005_c1_f0001.jpg", "0006_c2_f0002.jpg", "0009_c2_f0003.jpg"],
    }.items():
        write_images(root / "duke" / split, names)
    prepare_partial("dukemtmc_reid", root / "duke", root / "tfds")
    write_images(root / "own" / "query", ["1_a.png", "2_a.png"])
    write_images(root / "own" / "gallery", ["1_b.png", "2_b.png", "3_b.png"])
    prepare_partial("folder/own", root / "own", root / "tfds")
    (root / "tfds" / "folder" / "begun").mkdir()
    (root / "tfds" / "synthetic" / "tiny").mkdir(parents=True)
    return root / "tfds"


@pytest.fixture
def console():
    return Console(width=100, record=True, file=io.StringIO())


@pytest.fixture
def options(workdir, data_dir, tmp_path):
    return table_options(workdir, data_dir, tmp_path / "table")


def table_options(workdir, data_dir, output):
    return CrossDatasetOptions(
        checkpoint=(workdir,),
        data_dir=data_dir,
        allow_partial=True,
        settings=EvalConfig(rerank=True, k1=2, k2=1),
        output=output,
    )


@pytest.fixture(scope="module")
def finished(workdir, data_dir, tmp_path_factory):
    """The files of a complete table."""
    output = tmp_path_factory.mktemp("finished")
    evaluate_all(table_options(workdir, data_dir, output), {}, Console(file=io.StringIO()))
    return output


def files(options):
    return sorted(path.name for path in options.output.iterdir())


@pytest.fixture
def marked(options, finished):
    """The files of a complete table, with a mark that shows if they are read or evaluated."""
    shutil.copytree(finished, options.output)
    for name in FILES:
        path = options.output / name
        result = EvaluationResult.from_json(path.read_text())
        path.write_text(replace(result, n_ids=99).to_json())


def were_read(results):
    """Datasets whose results were read from files; the others were evaluated."""
    return [result.dataset for result in results if result.n_ids == 99]


def test_list_prepared(data_dir, tmp_path):
    others = ["cuhk03_np/labeled", "cuhk03_np/detected", "msmt17/train or msmt17/trainval"]
    prepared, missing, problems = list_prepared(data_dir)
    assert prepared == SETS
    assert sorted(missing) == sorted(others)
    assert problems == []
    prepared, missing, problems = list_prepared(tmp_path)
    assert prepared == problems == []
    assert sorted(missing) == sorted(SETS[:2] + others)


def test_table_shows_results_and_published_numbers(options, console, workdir):
    results = evaluate_all(options, PUBLISHED, console)
    assert [result.dataset for result in results] == SETS
    assert files(options) == FILES
    assert {result.trained_on for result in results} == {"market1501"}
    for result in results:
        name = f"market1501-to-{result.dataset}.json".replace("/", "_")
        assert (options.output / name).read_text() == result.to_json()

    text = console.export_text()
    lines = [line.strip() for line in text.splitlines()]
    for part in (
        "Not prepared: ",
        "cuhk03_np/labeled",
        "msmt17/train or msmt17/trainval",
        f"Trained on market1501: {workdir}, step 6; in percent",
        "image and mirror averaged",
        "re-ranking: k1 2, k2 1, lambda 0.3",
        "market1501 1.0.0, its own: 2 queries, 4 gallery images",
        "dukemtmc_reid 1.0.0: 2 queries, 3 gallery images",
        "folder/own 1.0.0: 2 queries, 3 gallery images, no camera ids",
    ):
        assert part in " ".join(text.split()), part
    # Only Duke has published numbers, for a network that is not re-ranked.
    assert [line.split() for line in lines if line.startswith("paper")] == [
        ["paper,", "not", "re-ranked", "52.40", "–", "–", "33.80", "–"]
    ]
    assert [line.split() for line in lines if line.startswith("PAP+PS")] == [
        ["PAP+PS,", "not", "re-ranked", "51.40", "–", "–", "31.70", "–"]
    ]
    ours = [line.split() for line in lines if line.startswith(("not re-ranked", "re-ranked"))]
    assert [row[:-5] for row in ours] == [["not", "re-ranked"], ["re-ranked"]] * 3
    for row, metrics in zip(
        ours,
        [part for result in results for part in (result.plain, result.reranked.metrics)],
        strict=True,
    ):
        shares = metrics.cmc[0], metrics.mean_ap, metrics.mean_ap_official
        shown = [*(f"{100 * share:.2f}" for share in shares), "–", f"{100 * metrics.mean_inp:.2f}"]
        assert row[-5:] == shown


class InterruptedConsole(Console):
    """Is interrupted when the second dataset begins."""

    def print(self, *arguments, **keywords):
        super().print(*arguments, **keywords)
        if arguments[0] == f"market1501 to {SETS[1]}":
            raise KeyboardInterrupt


def test_interrupted_table_resumes(options, console, finished):
    with pytest.raises(KeyboardInterrupt):
        evaluate_all(options, {}, InterruptedConsole(file=io.StringIO()))
    assert files(options) == ["market1501-to-dukemtmc_reid.json"]
    results = evaluate_all(options, {}, console)
    text = " ".join(console.export_text().split())
    assert text.count(": from ") == 1
    assert "market1501 to dukemtmc_reid: from " in text
    for result, name in zip(results, (FILES[0], FILES[2], FILES[1]), strict=True):
        assert result.to_json() == (finished / name).read_text()


def test_finished_table_is_read(options, marked, console):
    assert were_read(evaluate_all(options, {}, console)) == SETS


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 3},
        {"settings": EvalConfig(rerank=True, k1=2, k2=1, flip=False)},
        {"settings": EvalConfig(rerank=True, k1=3, k2=1)},
    ],
)
def test_other_weights_or_settings_are_evaluated_again(options, marked, console, changes):
    changed = replace(options, **changes)
    results = evaluate_all(changed, {}, console)
    assert were_read(results) == []
    for result in results:
        assert result.flipped == changed.settings.flip
        assert (result.reranked is not None) == changed.settings.rerank
        assert result.step == ("3" if "step" in changes else "6")


def test_table_without_reranking_keeps_results_that_have_it(options, marked, console):
    before = {name: (options.output / name).read_text() for name in FILES}
    results = evaluate_all(replace(options, settings=EvalConfig()), {}, console)
    assert were_read(results) == SETS
    assert [result.reranked for result in results] == [None] * 3
    assert {name: (options.output / name).read_text() for name in FILES} == before


def test_results_of_a_run_that_was_moved_are_those_of_one_model(options, marked, console, workdir):
    (options.output / FILES[0]).unlink()
    moved = workdir.parent / "." / workdir.name / ".." / workdir.name
    results = evaluate_all(replace(options, checkpoint=(moved,)), {}, console)
    assert were_read(results) == [name for name in SETS if name != "dukemtmc_reid"]
    assert {result.checkpoint for result in results} == {str(moved)}


def test_damaged_datasets_and_other_directories_do_not_hide_the_others(
    options, console, data_dir, tmp_path
):
    copy = shutil.copytree(data_dir, tmp_path / "tfds")
    (copy / "folder" / "own.bak").mkdir()
    for path in (copy / "market1501").rglob("dataset_info.json"):
        path.write_text("{")
    with pytest.raises(ExpectedError, match="2 datasets") as error:
        evaluate_all(replace(options, data_dir=copy), {}, console)
    assert "market1501: " in str(error.value)
    assert "own.bak" in str(error.value)
    assert files(options) == ["market1501-to-dukemtmc_reid.json", "market1501-to-folder_own.json"]


def test_output_below_a_file_is_named(options, console, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExpectedError, match=r"3 datasets .*file"):
        evaluate_all(replace(options, output=tmp_path / "file" / "results"), {}, console)


def test_other_data_and_damaged_files_are_evaluated_again(options, marked, console):
    path = options.output / FILES[0]
    stored = EvaluationResult.from_json(path.read_text())
    path.write_text(replace(stored, data_digest=None).to_json())  # As an earlier version wrote it.
    (options.output / FILES[1]).write_text('{"cut off')
    results = evaluate_all(options, {}, console)
    assert were_read(results) == ["market1501"]
    assert results[0].data_digest == stored.data_digest
    assert path.read_text() == results[0].to_json()


def test_dataset_prepared_again_is_evaluated_again(options, marked, console, data_dir, tmp_path):
    """With the same names, counts and labels, but other images."""
    copy = shutil.copytree(data_dir, tmp_path / "tfds")
    shutil.rmtree(copy / "folder" / "own")
    write_images(tmp_path / "own" / "query", ["2_a.png", "1_a.png"])
    write_images(tmp_path / "own" / "gallery", ["1_b.png", "2_b.png", "3_b.png"])
    prepare_partial("folder/own", tmp_path / "own", copy)
    results = evaluate_all(replace(options, data_dir=copy), {}, console)
    assert were_read(results) == SETS[:2]


def test_failing_datasets_do_not_hide_the_others(options, console):
    with pytest.raises(ExpectedError, match=r"2 datasets .* dukemtmc_reid: .*partial copy"):
        evaluate_all(replace(options, allow_partial=False), {}, console)
    assert files(options) == ["market1501-to-folder_own.json"]
    assert "folder/own 1.0.0: 2 queries" in console.export_text()


@pytest.fixture
def with_train_only(data_dir, tmp_path):
    """A copy of the prepared datasets, and one more that has no query and gallery."""
    write_images(tmp_path / "own" / "train", ["1_a.png", "2_a.png"])
    copy = shutil.copytree(data_dir, tmp_path / "tfds")
    prepare_partial("folder/train_only", tmp_path / "own", copy)
    return copy


def test_datasets_without_test_set_are_left_out(options, marked, console, with_train_only):
    assert were_read(evaluate_all(replace(options, data_dir=with_train_only), {}, console)) == SETS


def test_half_a_test_set_is_named(options, marked, console, with_train_only):
    directory = with_train_only / "folder" / "train_only" / "1.0.0"
    (records,) = directory.glob("folder-train.*")
    records.rename(directory / records.name.replace("train", "query"))
    path = directory / "dataset_info.json"
    path.write_text(path.read_text().replace('"train"', '"query"'))
    with pytest.raises(ExpectedError, match=r"1 datasets .* folder/train_only: .* of gallery"):
        evaluate_all(replace(options, data_dir=with_train_only), {}, console)


def test_nothing_prepared(options, console, tmp_path):
    with pytest.raises(InputError, match=f"No dataset .* is prepared in {tmp_path}/empty"):
        evaluate_all(replace(options, data_dir=tmp_path / "empty"), {}, console)
    assert "market1501" in console.export_text()


def test_several_checkpoints_are_one_matrix(options, console, workdir, tmp_path):
    other = tmp_path / "duke"
    write_run(other, "dukemtmc_reid", {5: 0.5})
    both = replace(options, checkpoint=(workdir, other))
    results = evaluate_all(both, {"paper": PAPER}, console)
    assert [(each.trained_on, each.dataset) for each in results] == [
        (source, target) for source in ("market1501", "dukemtmc_reid") for target in SETS
    ]
    assert {each.checkpoint for each in results} == {str(workdir), str(other)}
    written = (options.output / "table4.md").read_text()
    assert f"| market1501 | ours: {workdir}, step 6 | (" in written
    assert written.count("| paper |") == 4
    assert "dukemtmc_reid-to-market1501.json" in files(options)


def test_checkpoints_of_one_source_need_two_directories(options, console, workdir, tmp_path):
    other = shutil.copytree(workdir, tmp_path / "again")
    with pytest.raises(InputError, match="both trained on market1501"):
        evaluate_all(replace(options, checkpoint=(workdir, other)), {}, console)


def result_of(source, target, seed):
    """A result of random distances of 4 queries."""
    distances = np.random.default_rng(seed).random((4, 8))
    metrics = rank_metrics(distances, range(4), None, [0, 1, 2, 3] * 2, None)
    return EvaluationResult(
        *(target, "1.0.0", 4, 8, 4, True, True, metrics),
        checkpoint=f"runs/{source}",
        step="7",
        trained_on=source,
    )


def cell(result):
    metrics = result.plain
    shares = metrics.cmc[0], metrics.mean_ap, metrics.mean_ap_official
    return " / ".join(f"{100 * share:.1f}" for share in shares)


def test_matrix_has_measured_and_open_cells():
    own = result_of("market1501", "market1501", 1)
    labeled = result_of("market1501", "cuhk03_np/labeled", 2)
    synthetic = result_of("synthetic/full", "market1501", 3)
    grid = matrix([own, labeled, synthetic], {"paper": PAPER, "HHL*": OTHERS["HHL*"]})
    targets = ("market1501", "dukemtmc_reid", "cuhk03_np/labeled")
    assert grid.header == ("trained on", "method", *targets)
    rows = {row[:2]: row[2:] for row in grid.rows}
    assert rows == {
        ("market1501", "ours: runs/market1501, step 7"): (f"({cell(own)})", "open", cell(labeled)),
        ("market1501", "paper"): ("–", "52.4 / 33.8", "14.8 / 13.6"),
        ("market1501", "HHL*"): ("–", "46.9 / 27.2", "–"),
        ("dukemtmc_reid", "ours"): ("open",) * 3,
        ("dukemtmc_reid", "paper"): ("63.7 / 33.4", "–", "11.0 / 9.9"),
        ("dukemtmc_reid", "HHL*"): ("62.2 / 31.4", "–", "–"),
        ("cuhk03_np", "ours"): ("open",) * 3,
        ("cuhk03_np", "paper"): ("62.9 / 36.5", "41.8 / 25.5", "–"),
        ("cuhk03_np", "HHL*"): ("56.8 / 29.8", "42.7 / 23.4", "–"),
        ("msmt17", "ours"): ("open",) * 3,
        ("msmt17", "paper"): ("66.8 / 38.1", "68.2 / 47.8", "20.8 / 18.7"),
        ("synthetic/full", "ours: runs/synthetic/full, step 7"): (cell(synthetic), "open", "open"),
    }
    assert len(rows) == len(grid.rows)
