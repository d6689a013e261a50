"""What every command line needs: errors as sentences, whole files, quiet libraries."""

import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging as absl_logging
from rich.console import Console


@contextlib.contextmanager
def errors_as_sentences(console: Console) -> Iterator[None]:
    """Ends the program with one sentence for what a user can mend.

    The environment variable RMGL_TRACEBACK gives the trace to whoever wants it.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("RMGL_TRACEBACK"):
            raise
        console.print(f"[bold red]Error:[/] {type(error).__name__}:", end=" ")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)


def write_text(path: Path, text: str) -> None:
    """Writes a file, and the directories it lies in, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def quiet_libraries() -> None:
    """Silences Orbax and TFDS, which log their inner steps: what matters is said by ourselves."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Where Orbax can't read or write one array it drops the tasks of all others, and Python would
    # report each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        closed = "Event loop is closed" in str(unraisable.exc_value)
        if not (closed or inspect.iscoroutine(unraisable.object)):
            report(unraisable)

    sys.unraisablehook = report_others


def keep_compiled_programs() -> None:
    """Chooses where compiled programs are kept: the second start of the same one takes seconds."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rmgl_jax" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
