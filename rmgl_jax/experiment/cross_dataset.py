"""Cross-dataset evaluation: trained models on all prepared datasets (Table IV)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep import dataset_names, find_prepared, prepare_dataset, published_test_sets
from data_prep.errors import ExpectedError, InputError
from data_prep.files import check_local, check_output, expand, write_text
from data_prep.preparing import data_root
from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation.protocol import data_digest
from rmgl_jax.evaluation.result import EvaluationResult, PaperNumbers, measures
from rmgl_jax.experiment.cross_dataset_matrix import family, is_own, matrix
from rmgl_jax.experiment.evaluate import evaluate
from rmgl_jax.experiment.options import CrossDatasetOptions
from rmgl_jax.experiment.results import PairNumbers
from rmgl_jax.experiment.splits import load_query_and_gallery
from rmgl_jax.experiment.table import to_markdown, to_rich
from rmgl_jax.export.model_file import TrainedModel, load_model

_COLUMNS = ("rank-1", "mAP (step)", "mAP (official)", "mAP (unspecified)", "mINP")


def evaluate_all(
    options: CrossDatasetOptions, published: Mapping[str, PairNumbers], console: Console
) -> list[EvaluationResult]:
    """Evaluates checkpoints on every prepared dataset and prints a table of each.

    Several checkpoints, of networks trained on different datasets, also result in one matrix, which
    is written to `table4.md`.

    Each result is written to its own file. A dataset that was evaluated before, with the same
    weights, data and settings, is read from its file instead.

    Args:
        options: checkpoints and settings.
        published: numbers to print next to the results, by method.
        console: for messages, progress and the tables.

    Returns:
        All results, by checkpoint.

    Raises:
        InputError: no dataset with query and gallery is prepared, or two checkpoints would write
            the same files; see also `load_model`.
        MissingFileError: the work directory or its checkpoints are not there.
        ExpectedError: some datasets could not be evaluated. They are named after the table of the
            others was printed.
    """
    models = _load_models(options)
    prepared, missing, problems = list_prepared(options.data_dir)
    if missing:
        console.print(f"Not prepared: {', '.join(missing)}.", highlight=False)
    if not prepared and not problems:
        where = options.data_dir or "TFDS's own directory"
        raise InputError(
            f"No dataset with query and gallery is prepared in {where}; see "
            "docs/how_to/prepare_datasets.md."
        )
    results: list[EvaluationResult] = []
    for checkpoint, model in models.items():
        trained_on = model.config.dataset
        found = []
        for name in prepared:
            try:
                found.append(_evaluate_or_read(model, checkpoint, name, options, console))
            except ExpectedError as error:
                problems.append(f"{trained_on} to {name}: {error}")
        if found:
            numbers = {
                method: by_source.get(family(trained_on), {})
                for method, by_source in published.items()
            }
            console.print(_table(found, model, numbers))
            directory = _directory(checkpoint, options)
            console.print(f"Each result is in {directory}", highlight=False, markup=False)
        results += found
    if len(models) > 1 and results:
        grid = matrix(results, published)
        console.print(to_rich(grid))
        path = _directory(options.checkpoint[0], options) / "table4.md"
        write_text(path, f"{grid.title}\n\n{to_markdown(grid)}\n")
        console.print(f"Written to {path}", highlight=False, markup=False)
    if problems:
        raise ExpectedError(f"{len(problems)} datasets were not evaluated. {' '.join(problems)}")
    return results


def _load_models(options: CrossDatasetOptions) -> dict[Path, TrainedModel]:
    """Loads all checkpoints, and checks that their results have different files."""
    models: dict[Path, TrainedModel] = {}
    used: dict[tuple[str, Path], Path] = {}
    for checkpoint in dict.fromkeys(options.checkpoint):
        model = load_model(expand(checkpoint), options.step, options.best)
        trained_on, directory = model.config.dataset, _directory(checkpoint, options)
        other = used.setdefault((trained_on, directory.resolve()), checkpoint)
        if other != checkpoint:
            raise InputError(
                f"{checkpoint} and {other} are both trained on {trained_on}, and their results "
                f"would have the same names in {directory}; evaluate one of them, or use the "
                "default output."
            )
        models[checkpoint] = model
    return models


def _directory(checkpoint: Path, options: CrossDatasetOptions) -> Path:
    """Directory of the results of a checkpoint."""
    if options.output:
        return expand(options.output)
    checkpoint = expand(checkpoint)
    return (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "table4"


def list_prepared(data_dir: Path | None) -> tuple[list[str], list[str], list[str]]:
    """Names of the datasets that are prepared, and of the published ones that are not.

    Datasets without query and gallery are left out. Of variants with the same test images only the
    first one is listed.

    Returns:
        Both lists, and a sentence for each dataset that is damaged.
    """
    check_local("The directory of prepared datasets", data_dir)
    prepared, missing, problems = [], [], list[str]()

    def is_prepared(name: str) -> bool:
        try:
            builder = find_prepared(name, data_dir)
            # Half a test set is listed: its evaluation names what is missing.
            return builder is not None and bool({"query", "gallery"} & builder.info.splits.keys())
        except ExpectedError as error:
            problems.append(f"{name}: {error}")
            return False

    published = published_test_sets()
    for variants in published:
        damaged = len(problems)
        found = [name for name in variants if is_prepared(name)]
        prepared += found[:1]
        if not found and len(problems) == damaged:
            missing.append(" or ".join(variants))
    seen = {name for variants in published for name in variants}
    others = [name for names in dataset_names().values() for name in names if name not in seen]
    own = sorted(path for path in (data_root(data_dir) / "folder").glob("[!.]*") if path.is_dir())
    others += [f"folder/{path.name}" for path in own]
    return prepared + [name for name in others if is_prepared(name)], missing, problems


def _evaluate_or_read(
    model: TrainedModel,
    checkpoint: Path,
    name: str,
    options: CrossDatasetOptions,
    console: Console,
) -> EvaluationResult:
    source = model.config.dataset
    path = _directory(checkpoint, options) / f"{source}-to-{name}.json".replace("/", "_")
    check_output(path)
    result = _read_result(path, model, name, options)
    if result is not None:
        console.print(f"{source} to {name}: from {path}", highlight=False, markup=False)
        # The run may have been moved since, and not everything in the file is asked for.
        reranked = result.reranked if options.settings.rerank else None
        return replace(result, checkpoint=str(checkpoint), reranked=reranked)
    if path.exists():
        console.print(
            f"The result in {path} is of other weights, data or settings, and is replaced.",
            highlight=False,
            markup=False,
        )
    console.print(f"{source} to {name}", highlight=False)
    result = evaluate(
        model,
        name,
        data_dir=options.data_dir,
        allow_partial=options.allow_partial,
        settings=options.settings,
        checkpoint=str(checkpoint),
        console=console if console.is_terminal else None,
    )
    write_text(path, result.to_json())
    return result


def _read_result(
    path: Path, model: TrainedModel, name: str, options: CrossDatasetOptions
) -> EvaluationResult | None:
    """The result in a file if it has the weights, data and settings that are asked for."""
    builder = prepare_dataset(name, data_dir=options.data_dir, allow_partial=options.allow_partial)
    try:
        result = EvaluationResult.from_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    test = load_query_and_gallery(builder, model.config.model.image_size)
    same = (
        test is not None
        and result.digest == model.digest
        and result.version == str(builder.version)
        and result.data_digest == data_digest(*test)
        and _has_settings(result, options.settings)
    )
    return result if same else None


def _has_settings(result: EvaluationResult, settings: EvalConfig) -> bool:
    """Tells whether a result has these settings; it may be re-ranked in addition."""
    if result.flipped != settings.flip:
        return False
    if not settings.rerank:
        return True
    r = result.reranked
    return r is not None and (r.k1, r.k2, r.lambda_value) == (
        settings.k1,
        settings.k2,
        settings.lambda_value,
    )


def _table(
    results: Sequence[EvaluationResult],
    model: TrainedModel,
    published: Mapping[str, PaperNumbers],
) -> Table:
    """One table of all datasets; what they have in common is in its title.

    Args:
        results: one per dataset.
        model: the model they are of.
        published: numbers by method, dataset of evaluation and measure.
    """
    first, trained_on = results[0], model.config.dataset
    title = [
        f"Trained on {trained_on}: {first.checkpoint}, step {first.step}; in percent",
        "embeddings of image and mirror averaged" if first.flipped else "not flipped",
    ]
    if first.reranked is not None:
        r = first.reranked
        title.append(f"re-ranking: k1 {r.k1}, k2 {r.k2}, lambda {r.lambda_value:g}")
    table = Table(
        title=Text("\n".join(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("tested on", overflow="fold")
    for name in _COLUMNS:
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for result in results:
        own = is_own(result.dataset, trained_on)
        table.add_row(
            f"{result.dataset} {result.version}{', its own' if own else ''}: "
            f"{result.n_query:,} queries, {result.n_gallery:,} gallery images"
            f"{'' if result.same_camera_rule else ', no camera ids'}"
        )
        rows = [("not re-ranked", measures(result.plain))]
        for method, by_target in published.items():
            target = by_target.get(family(result.dataset), {})
            if target and not own:
                # No method says which mAP it reports.
                numbers = {
                    name.replace("mAP", "mAP (unspecified)"): value
                    for name, value in target.items()
                }
                rows.append((f"{method}, not re-ranked", numbers))
        if result.reranked is not None:
            rows.append(("re-ranked", measures(result.reranked.metrics)))
        for name, values in rows:
            cells = (f"{values[column]:.2f}" if column in values else "–" for column in _COLUMNS)
            table.add_row(f"  {name}", *cells, end_section=name == rows[-1][0])
    return table
