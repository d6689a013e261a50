"""Evaluation of a trained model on the query and gallery of a dataset."""

from rich.console import Console

from data_prep import prepare_dataset
from data_prep.errors import InputError
from data_prep.files import check_output, expand, write_text
from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation import protocol
from rmgl_jax.evaluation.result import EvaluationResult, print_parts, print_results
from rmgl_jax.experiment.options import EvaluateOptions
from rmgl_jax.experiment.splits import AnyPath, load_query_and_gallery
from rmgl_jax.export.model_file import TrainedModel, load_model


def evaluate(
    model: TrainedModel,
    dataset: str,
    *,
    source: AnyPath | None = None,
    data_dir: AnyPath | None = None,
    allow_partial: bool = False,
    settings: EvalConfig | None = None,
    query_expansion: bool = False,
    roc: bool = False,
    by_part: bool = False,
    checkpoint: str | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Evaluates a trained model on the query and gallery of a dataset, its own or another.

    Images are resized to the size that the model was trained at.

    Args:
        model: as `load_model` gives it.
        dataset: name as "market1501", "cuhk03_np/labeled" or "folder/NAME".
        source: directory of the dataset's files, needed to prepare it on first use.
        data_dir: directory of prepared datasets; None is TFDS's own.
        allow_partial: accept other image counts than the published ones.
        settings: flip, batch size and re-ranking; None is `EvalConfig()`.
        query_expansion: also rank by alpha query expansion.
        roc: also measure true positive rates at false positive rates of 1e-4 to 1e-1.
        by_part: also rank by each branch, path, region and feature of the embeddings alone.
        checkpoint: origin of the weights, recorded in the result.
        console: for the progress bar; None is silent.

    Raises:
        InputError: the dataset is unknown, or has no query and gallery images.
        MissingFileError: the dataset is not prepared and `source` does not have it.
    """
    builder = prepare_dataset(dataset, source, data_dir, allow_partial=allow_partial)
    test = load_query_and_gallery(builder, model.config.model.image_size)
    if test is None:
        raise InputError(f"{builder.data_path} has no images of query and gallery.")
    return protocol.evaluate_splits(
        model.config.model,
        model.variables,
        *test,
        settings or EvalConfig(),
        expand=query_expansion,
        verify=roc,
        by_part=by_part,
        checkpoint=checkpoint,
        step=model.step,
        trained_on=model.config.dataset,
        digest=model.digest,
        console=console,
    )


def evaluate_run(options: EvaluateOptions, console: Console) -> EvaluationResult:
    """Evaluates a checkpoint of a run, prints the result, and writes it to `options.output`.

    Raises:
        InputError: the output does not end in `.json`; see also `evaluate` and `load_model`.
        MissingFileError: the work directory, its checkpoints or the dataset are not there.
    """
    output = None if options.output is None else expand(options.output)
    if output is not None and output.suffix != ".json":
        raise InputError(f"--output must end in .json, got {output}.")
    model = load_model(expand(options.checkpoint), options.step, options.best)
    if output is not None:
        check_output(output)
    result = evaluate(
        model,
        options.dataset,
        source=options.data.source,
        data_dir=options.data.data_dir,
        allow_partial=options.data.allow_partial,
        settings=options.settings,
        query_expansion=options.query_expansion,
        roc=options.roc,
        by_part=options.by_part,
        checkpoint=str(options.checkpoint),
        console=console if console.is_terminal else None,
    )
    print_results([result], console=console)
    if result.parts is not None:
        print_parts(result, console)
    if output is not None:
        write_text(output, result.to_json())
        console.print(f"Written to {output}", highlight=False, markup=False)
    return result
