import io
import shutil
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from experiments import table4_cross_dataset
from experiments.table4_cross_dataset import OTHERS, PAPER
from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation import protocol
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.experiment import cross_dataset
from rmgl_jax.experiment.cross_dataset import TableOptions, cross_table, prepared_sets
from tests.tiny_trees import prepare_partial, write_images, write_market
from tests.trained_run import write_run

SETS = ["market1501", "dukemtmc_reid", "folder/own"]
FILES = [f"market1501-to-{name}.json" for name in ("dukemtmc_reid", "folder_own", "market1501")]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "market"
    write_run(workdir, "market1501", {3: 0.5, 6: 0.4})
    return workdir


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Three prepared sets, and what is none of them."""
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
    return TableOptions(
        checkpoint=workdir,
        data_dir=data_dir,
        allow_partial=True,
        settings=EvalConfig(rerank=True, k1=2, k2=1),
        output=output,
    )


@pytest.fixture(scope="module")
def finished(workdir, data_dir, tmp_path_factory):
    """The files of a complete table."""
    output = tmp_path_factory.mktemp("finished")
    cross_table(table_options(workdir, data_dir, output), PAPER, Console(file=io.StringIO()))
    return output


@pytest.fixture
def embedded(monkeypatch):
    """Counts how many splits are embedded."""
    counts, embed = [], protocol.embed
    monkeypatch.setattr(protocol, "embed", lambda *a, **k: counts.append(1) or embed(*a, **k))
    return counts


def files(options):
    return sorted(path.name for path in options.output.iterdir())


def test_what_is_prepared(data_dir, tmp_path):
    others = ["cuhk03_np/labeled", "cuhk03_np/detected", "msmt17/train or msmt17/trainval"]
    assert prepared_sets(data_dir) == (SETS, others)
    assert prepared_sets(tmp_path) == ([], SETS[:2] + others)


def test_the_table(options, console, workdir):
    results = cross_table(options, PAPER, console, OTHERS)
    assert [result.dataset for result in results] == SETS
    assert files(options) == FILES
    assert {result.trained_on for result in results} == {"market1501"}
    for result in results:
        name = f"market1501-to-{result.dataset}.json".replace("/", "_")
        assert (options.output / name).read_text() == result.to_json()

    text = console.export_text()
    lines = [line.strip() for line in text.splitlines()]
    for part in (
        "Not prepared: cuhk03_np/labeled, cuhk03_np/detected, msmt17/train or msmt17/trainval.",
        f"TrainedModel on market1501: {workdir}, step 6; in percent",
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


def test_an_interrupted_table_goes_on(options, console, monkeypatch, embedded):
    embed = protocol.embed

    def interrupted(*arguments, **keywords):
        if len(embedded) == 3:
            raise KeyboardInterrupt
        return embed(*arguments, **keywords)

    monkeypatch.setattr(protocol, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_table(options, PAPER, console)
    assert files(options) == ["market1501-to-market1501.json"]
    monkeypatch.setattr(protocol, "embed", embed)
    embedded.clear()
    first = cross_table(options, PAPER, console)
    assert len(embedded) == 4  # queries and galleries of the two others
    assert "market1501 to market1501: from " in " ".join(console.export_text().split())
    embedded.clear()
    second = cross_table(options, PAPER, console)
    assert not embedded
    assert [result.to_json() for result in second] == [result.to_json() for result in first]


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 3},
        {"settings": EvalConfig(rerank=True, k1=2, k2=1, flip=False)},
        {"settings": EvalConfig(rerank=True, k1=3, k2=1)},
        {"settings": EvalConfig()},
    ],
)
def test_a_pair_of_other_weights_or_settings_is_evaluated_anew(
    options, finished, console, embedded, changes
):
    shutil.copytree(finished, options.output)
    changed = replace(options, **changes)
    results = cross_table(changed, PAPER, console)
    assert len(embedded) == 6
    for result in results:
        assert result.flipped == changed.settings.flip
        assert (result.reranked is not None) == changed.settings.rerank
        assert result.step == ("3" if "step" in changes else "6")


def test_a_pair_of_other_data_is_evaluated_anew(options, finished, console, embedded):
    shutil.copytree(finished, options.output)
    path = options.output / FILES[0]
    stored = EvaluationResult.from_json(path.read_text())
    path.write_text(replace(stored, n_gallery=4).to_json())
    (options.output / FILES[1]).write_text('{"cut off')
    results = cross_table(options, PAPER, console)
    assert len(embedded) == 4
    assert results[1].n_gallery == 3
    assert path.read_text() == results[1].to_json()


def test_a_set_that_cannot_be_evaluated_does_not_hide_the_others(options, console):
    with pytest.raises(ValueError, match=r"2 sets were not evaluated. market1501: .*partial copy"):
        cross_table(replace(options, allow_partial=False), PAPER, console)
    assert files(options) == ["market1501-to-folder_own.json"]
    assert "folder/own 1.0.0: 2 queries" in console.export_text()


def test_nothing_prepared(options, console, tmp_path):
    with pytest.raises(ValueError, match="No data set is prepared in "):
        cross_table(replace(options, data_dir=tmp_path / "empty"), PAPER, console)
    assert "Not prepared: market1501, dukemtmc_reid" in console.export_text()


def test_the_paper_has_every_pair_but_those_within_a_set_or_to_msmt17():
    targets = {"market1501", "dukemtmc_reid", "cuhk03_np"}
    assert {source: set(row) for source, row in PAPER.items()} == {
        source: targets - {source} for source in (*targets, "msmt17")
    }
    pairs = [pair for sources in OTHERS.values() for row in sources.values() for pair in row]
    assert len(pairs) == 29
    assert OTHERS["HHL*"]["cuhk03_np"]["market1501"] == {"mAP": 29.8, "rank-1": 56.8}


def test_the_command(monkeypatch, data_dir, tmp_path):
    seen = []
    monkeypatch.setattr(cross_dataset, "cross_table", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(cross_dataset, "start_jax", lambda options: None)
    monkeypatch.setattr(cross_dataset, "silence_loggers", lambda: None)
    command = f"table4.py --checkpoint {tmp_path} --data_dir {data_dir} --no_flip"
    monkeypatch.setattr(sys, "argv", command.split())
    cross_dataset.table_main(PAPER, table4_cross_dataset.__doc__, OTHERS)
    wanted = TableOptions(checkpoint=tmp_path, data_dir=data_dir, settings=EvalConfig(flip=False))
    ((options, *published),) = seen
    assert options == wanted
    assert (published[0], published[2]) == (PAPER, OTHERS)
