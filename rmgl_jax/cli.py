"""The command `rmgl`, also `python -m rmgl_jax`: one subcommand for each task."""

import importlib
import os
import select
import sys
from contextlib import nullcontext
from typing import NamedTuple, TextIO

from rmgl_jax import __version__, interrupts


class Command(NamedTuple):
    """A subcommand: where its `main(arguments)` is, imported only when it is called."""

    module: str
    help: str


COMMANDS = {
    "prepare": Command("data_prep.command", "prepare a dataset from files that you have"),
    "train": Command("rmgl_jax.experiment.train_command", "train on a prepared dataset, or resume"),
    "evaluate": Command("rmgl_jax.experiment.evaluate_command", "CMC and mAP of a trained model"),
    "embed": Command("rmgl_jax.gallery.embed_command", "embeddings of image files"),
    "compare": Command(
        "rmgl_jax.gallery.compare_command", "similarity of two images: the same person?"
    ),
    "compress": Command("rmgl_jax.experiment.compress_command", "fit shorter embeddings"),
    "calibrate": Command(
        "rmgl_jax.experiment.calibrate_command", "measure thresholds for the same person"
    ),
    "gallery": Command("rmgl_jax.gallery.command", "add images to a gallery and search it"),
    "export": Command("rmgl_jax.export.command", "write a model as ONNX, StableHLO or one file"),
    "report": Command("rmgl_jax.report.command", "write a run as one self-contained page"),
}


def run() -> None:
    """Runs the program `rmgl`: until its process ends, Ctrl-C ends it with one line."""
    interrupts.end_at_once()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_closed(sys.stdout):
            raise
        # Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _is_closed(stream: TextIO) -> bool:
    """True if whoever reads the stream has enough, as `head` has."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def main(arguments: list[str] | None = None) -> None:
    """Runs the subcommand that the command line names; status 2 if there is none of that name."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(f"rmgl_jax {__version__}")
    elif name in COMMANDS:
        with interrupts.watch(seconds=0):  # Imports and parsing leave nothing to clean up.
            command = importlib.import_module(COMMANDS[name].module).main
            with interrupts.watch() if name == "prepare" else nullcontext():
                command(rest)
    else:
        print(f"rmgl has no command {name!r}.\n\n{usage()}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    """All subcommands, a line each."""
    lines = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rmgl COMMAND [OPTIONS]",
            "",
            "Person re-identification with RMGL in JAX.",
            "",
            *lines,
            "",
            "rmgl COMMAND --help shows the options of a command.",
        ]
    )
