"""`experiments.evaluate`, and what of it lies in `evaluation.trained` and `evaluation.protocol`."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from rmgl_jax.config import EvalConfig
from rmgl_jax.data.store import decode_split
from rmgl_jax.evaluation import distances, protocol
from rmgl_jax.evaluation.distances import squared_distances
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.reranking import rerank
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.evaluation.verification import verification_metrics
from rmgl_jax.experiment import cross_dataset, run
from rmgl_jax.experiment.cross_dataset import EvaluateOptions, evaluate_run
from rmgl_jax.export.model_file import load_model
from rmgl_jax.training.checkpoints import CheckpointError
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import create_state
from tests.tiny_trees import prepare_partial, write_images, write_market
from tests.trained_run import run_config, write_run

SCORES = {3: 0.5, 6: 0.9, 9: None}
QUERIES = [f"{pid:04}_c1_{pid}.png" for pid in range(1, 7)]
GALLERY = [f"{pid:04}_c{camera}_{pid}.png" for pid in range(8) for camera in (1, 2, 3)]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "market"
    write_run(workdir, "market1501", SCORES)
    return workdir


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The tiny tree as Market-1501, and `folder/own` with 6 queries and 24 gallery images."""
    root = tmp_path_factory.mktemp("data")
    prepare_partial("market1501", write_market(root / "Market-1501"), root / "tfds")
    for split, names in (("query", QUERIES), ("gallery", GALLERY)):
        write_images(root / "own" / split, names)
    prepare_partial("folder/own", root / "own", root / "tfds")
    return root / "tfds"


@pytest.fixture
def console():
    return Console(width=100, record=True, file=io.StringIO())


@pytest.fixture(scope="module")
def expected(workdir, data_dir):
    """What each checkpoint and setting should give, from whole matrices of distances."""

    def evaluate(step, flip=True):
        config = run_config("market1501")
        state = create_state(config.model, make_optimizer(config.optimizer, 1), seed=step)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        builder = prepare_partial("folder/own", None, data_dir)
        query, gallery = (decode_split(builder, split, (32, 16)) for split in ("query", "gallery"))
        features = [
            embed(config.model, variables, split.images, flip=flip) for split in (query, gallery)
        ]
        return features, (query.pids, query.camids, gallery.pids, gallery.camids)

    return evaluate


def options(workdir, data_dir, **changes):
    return EvaluateOptions(checkpoint=workdir, dataset="folder/own", data_dir=data_dir, **changes)


def assert_metrics(found, wanted):
    for name in ("cmc", "ap", "ap_official", "inp", "first_match_rank"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(wanted, name), atol=1e-6, err_msg=name
        )


def test_everything_at_once(workdir, data_dir, expected, console, tmp_path):
    settings = EvalConfig(rerank=True, k1=4, k2=2, lambda_value=0.2, batch_size=8)
    output = tmp_path / "made" / "result.json"
    result = evaluate_run(
        options(
            workdir, data_dir, settings=settings, query_expansion=True, roc=True, output=output
        ),
        console,
    )
    (query, gallery), labels = expected(9)
    plain = np.asarray(squared_distances(query, gallery))
    assert_metrics(result.plain, rank_metrics(plain, *labels))
    again = rerank(query, gallery, 4, 2, 0.2)
    assert_metrics(result.reranked.metrics, rank_metrics(again, *labels))
    expanded = np.asarray(squared_distances(expand_queries(query, gallery, 5, 3.0), gallery))
    assert_metrics(result.expanded.metrics, rank_metrics(expanded, *labels))
    rates = verification_metrics(plain, *labels)
    np.testing.assert_array_equal(
        result.verification.true_positive_rates, rates.true_positive_rates
    )
    assert result.verification.n_negative == rates.n_negative

    text = console.export_text()
    for part in (
        "folder/own 1.0.0: 6 queries of 6 identities, 24 gallery images",
        "re-ranking: k1 4, k2 2, lambda 0.2",
        "query expansion: k 5, alpha 3",
        "at 0.0001",
        f"{workdir}, step 9, trained on market1501",
        "flipped, not re-ranked",
        "flipped, re-ranked",
        "flipped, queries expanded",
    ):
        assert part in " ".join(text.split()), part

    stored = json.loads(output.read_text())
    assert stored["checkpoint"] == str(workdir)
    assert stored["step"] == "9"
    assert stored["flipped"] is True
    assert (stored["n_query"], stored["n_gallery"], stored["n_ids"]) == (6, 24, 6)
    assert stored["plain"]["mean_ap"] == result.plain.mean_ap
    assert stored["plain"]["mean_ap_official"] == result.plain.mean_ap_official
    assert stored["reranked"]["k1"] == 4
    assert EvaluationResult.from_json(output.read_text()).to_json() == output.read_text()
    assert [path.name for path in output.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("changes", "step", "flip"),
    [
        ({}, 9, True),
        ({"step": 3}, 3, True),
        ({"best": True}, 6, True),
        ({"settings": EvalConfig(flip=False)}, 9, False),
    ],
)
def test_the_checkpoint_and_flip_asked_for(
    workdir, data_dir, expected, console, changes, step, flip
):
    result = evaluate_run(options(workdir, data_dir, **changes), console)
    features, labels = expected(step, flip)
    wanted = rank_metrics(np.asarray(squared_distances(*features)), *labels)
    assert_metrics(result.plain, wanted)
    assert (result.step, result.flipped) == (str(step), flip)
    assert result.reranked is None
    assert result.expanded is None
    assert result.verification is None
    assert ("not flipped" in console.export_text()) is not flip


def test_data_that_is_not_prepared_is_prepared_from_the_source(workdir, console, tmp_path):
    write_images(tmp_path / "new" / "query", QUERIES[:2])
    write_images(tmp_path / "new" / "gallery", GALLERY[:9])
    arguments = {"checkpoint": workdir, "dataset": "folder/new", "data_dir": tmp_path / "tfds"}
    result = evaluate_run(EvaluateOptions(source=tmp_path / "new", **arguments), console)
    assert (result.n_query, result.n_gallery) == (2, 9)
    assert evaluate_run(EvaluateOptions(**arguments), console).to_json() == result.to_json()


def tree(directory):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(directory.rglob("*"))
    }


def test_a_run_that_goes_on_is_left_alone(workdir, tmp_path):
    """Nothing is changed or removed, least of all the checkpoint that is being written."""
    busy = tmp_path / "busy"
    shutil.copytree(workdir, busy)
    begun = busy / "checkpoints" / "12.orbax-checkpoint-tmp"
    begun.mkdir()
    (begun / "part").write_bytes(b"begun")
    before = tree(busy)
    assert load_model(busy).step == 9
    assert load_model(busy, best=True).step == 6
    assert tree(busy) == before


def test_a_damaged_checkpoint_is_passed_over_unless_it_is_the_one_asked_for(workdir, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(workdir, damaged)
    for path in (damaged / "checkpoints" / "9" / "default" / "d").iterdir():
        path.write_bytes(b"")
    whole = load_model(damaged)
    assert whole.step == 6
    with pytest.raises(CheckpointError, match=r"\[9\] are damaged"):
        load_model(damaged, step=9)


def test_the_digest_tells_checkpoints_apart(workdir):
    digests = [load_model(workdir, step).digest for step in (3, 6, 3)]
    assert digests[0] == digests[2] != digests[1]


def test_variables_lie_on_all_devices(workdir):
    leaves = jax.tree.leaves(load_model(workdir).variables)
    assert all(len(leaf.sharding.device_set) == jax.device_count() for leaf in leaves)


def test_what_is_not_there_is_said(workdir, data_dir, console, tmp_path):
    def fails(kind, match, directory=workdir, **changes):
        with pytest.raises(kind, match=match):
            evaluate_run(replace(options(directory, data_dir), **changes), console)

    fails(FileNotFoundError, "is no work directory of a run", directory=tmp_path)
    fails(CheckpointError, r"no checkpoint of step 4; it has \[3, 6, 9\]", step=4)
    fails(ValueError, "not both", step=3, best=True)
    fails(FileNotFoundError, "no source was given", dataset="msmt17/train")
    fails(ValueError, "unknown data set 'mars'", dataset="mars")
    fails(ValueError, "partial", dataset="market1501")
    write_images(tmp_path / "train_only" / "train", QUERIES)
    fails(
        ValueError,
        "no images of gallery and query",
        dataset="folder/train_only",
        source=tmp_path / "train_only",
    )


def test_runs_without_checkpoints_or_scores(tmp_path):
    write_run(tmp_path / "unscored", "market1501", {3: None})
    with pytest.raises(ValueError, match=r"None of the checkpoints .* steps \[3\]"):
        load_model(tmp_path / "unscored", best=True)
    shutil.rmtree(tmp_path / "unscored" / "checkpoints" / "3")
    with pytest.raises(FileNotFoundError, match="no checkpoints yet"):
        load_model(tmp_path / "unscored")
    (tmp_path / "unscored" / "checkpoints").rmdir()
    with pytest.raises(FileNotFoundError, match="no checkpoints yet"):
        load_model(tmp_path / "unscored")


def test_distances_come_in_blocks(workdir, data_dir, console, monkeypatch):
    """With room for two rows of distances no larger block is ever ranked, re-ranked or not."""
    monkeypatch.setattr(distances, "TILE_BYTES", 2 * 4 * len(GALLERY))
    seen = []

    def spy(rank):
        def ranked(blocks, *labels):
            blocks = list(blocks)
            seen.append([block.shape for _, block in blocks])
            return rank(blocks, *labels)

        return ranked

    for name in ("rank_blocks", "verification_blocks"):
        monkeypatch.setattr(protocol, name, spy(getattr(protocol, name)))
    settings = EvalConfig(rerank=True, k1=4, k2=2)
    evaluate_run(options(workdir, data_dir, settings=settings, roc=True), console)
    assert seen == [[(2, len(GALLERY))] * 3] * 2


def test_a_result_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    run.write_text(path, "old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        run.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("spelling", ["--no_flip", "--no-flip"])
def test_options(spelling, monkeypatch):
    seen = []
    monkeypatch.setattr(
        cross_dataset, "evaluate_run", lambda options, console: seen.append(options)
    )
    monkeypatch.setattr(cross_dataset, "start_jax", lambda options: None)
    monkeypatch.setattr(cross_dataset, "silence_loggers", lambda: None)
    command = f"evaluate.py --checkpoint a --dataset folder/b --data_dir c --best {spelling} "
    command += "--rerank --k1 7 --query_expansion --roc --output d.json --batch_size 4"
    monkeypatch.setattr(sys, "argv", command.split())
    cross_dataset.evaluate_main("")
    assert seen == [
        EvaluateOptions(
            checkpoint=Path("a"),
            dataset="folder/b",
            data_dir=Path("c"),
            best=True,
            settings=EvalConfig(flip=False, rerank=True, k1=7, batch_size=4),
            query_expansion=True,
            roc=True,
            output=Path("d.json"),
        )
    ]


def test_the_command_ends_with_a_sentence(tmp_path):
    """And not with a trace, for what its user can mend."""
    command = ["-m", "experiments.evaluate", "--checkpoint", str(tmp_path), "--dataset", "folder/a"]
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "is no work directory of a run" in " ".join(ended.stdout.split())
    assert "Traceback" not in ended.stdout + ended.stderr
