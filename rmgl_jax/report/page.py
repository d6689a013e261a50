"""Writes a run as one self-contained HTML page."""

from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from data_prep.errors import InputError, WriteError
from data_prep.files import expand, write_text
from rmgl_jax import __version__
from rmgl_jax.evaluation.protocol import data_digest
from rmgl_jax.page_templates import make_environment
from rmgl_jax.report.inspection import Inspection, inspect_run
from rmgl_jax.report.pictures import data_uri, thumbnail
from rmgl_jax.report.result_table import result_rows
from rmgl_jax.report.run_files import RunFiles, read_run
from rmgl_jax.report.sections import SECTIONS

REPORT_NAME = "report.html"
_PICTURE_HEIGHT = 224  # pixels on the page


def write_report(
    workdir: Path,
    *,
    data_dir: Path | None = None,
    output: Path | None = None,
    figures: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes the page of a run, completely or not at all.

    Images of rendered datasets are always included, photographs only with `figures`. Without images
    neither the dataset nor a checkpoint is read.

    Args:
        workdir: run directory, of a run that is finished or still training.
        data_dir: directory of the prepared datasets; TFDS's own by default.
        output: file to write; `report.html` in the run directory by default.
        figures: Include photographs of people.
        console: for remarks and, if it is a terminal, progress; None is silent.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: `workdir` is not a run directory, nothing is recorded yet, or the dataset
            is not prepared.
        ValueError: a file of the run is damaged, or the result is of other images than those that
            are prepared now; see also `inspect_run`.
        WriteError: the page cannot be written; an existing page stays as it is.
    """
    workdir = expand(workdir)
    run = read_run(workdir)
    if console is not None and run.log_damage is not None:
        console.print(run.log_damage, highlight=False, markup=False, soft_wrap=True)
    progress = console if console is not None and console.is_terminal else None
    seen = None
    if (figures or run.is_rendered) and run.has_checkpoint:
        result = run.result
        step = None if result is None or result.step is None else int(result.step)
        dataset = run.config.dataset if result is None else result.dataset
        seen = inspect_run(workdir, dataset, step, data_dir, progress)
        digest = data_digest(seen.query, seen.gallery)
        if result is not None and result.data_digest not in (None, digest):
            raise InputError(
                f"The result of {workdir} is of other images of {dataset} than those that are "
                f"prepared now: the digests of query and gallery were {result.data_digest}, and "
                f"are {digest}."
            )
    path = expand(output) if output else workdir / REPORT_NAME
    html = render(run, seen)
    try:
        write_text(path, html)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def render(run: RunFiles, seen: Inspection | None = None) -> str:
    """Renders the page as HTML.

    Args:
        run: files of the run.
        seen: the model's view of the images; None leaves them out.
    """
    environment = make_environment("rmgl_jax.report")
    image_height, image_width = run.config.model.image_size
    environment.globals |= {
        "height": _PICTURE_HEIGHT,
        "width": round(image_width * _PICTURE_HEIGHT / image_height),
        "scale": _PICTURE_HEIGHT / image_height,  # pixels on the page for one of the image
        "run": run,
        "seen": seen,
    }
    environment.filters |= {"data_uri": data_uri, "thumbnail": thumbnail}
    sections = []
    for section in SECTIONS:
        data = section.data(run, seen)
        if data is not None:
            html = environment.get_template(f"{section.id}.html.j2").render(data)
            sections.append((section, Markup(html)))
    return environment.get_template("page.html.j2").render(
        sections=sections,
        rows=result_rows(run, seen),
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
