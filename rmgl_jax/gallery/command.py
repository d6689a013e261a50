"""The command `rmgl gallery`: add images to a gallery, search, list, remove and serve it."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import tyro
from rich.console import Console

from rmgl_jax.gallery.command_options import AddOptions, ListOptions, RemoveOptions, SearchOptions
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


class Command(NamedTuple):
    """A subcommand."""

    options: Any
    action: str
    """Name of a function in `actions`."""
    help: str


COMMANDS = {
    "add": Command(AddOptions, "add_images", "add images, and make the gallery if there is none"),
    "search": Command(SearchOptions, "search_images", "find the images most similar to an image"),
    "list": Command(ListOptions, "list_images", "list images, all or those that filters leave"),
    "remove": Command(RemoveOptions, "remove_images", "remove images by id or path"),
}


def main(arguments: Sequence[str]) -> None:
    """Runs the subcommand of `rmgl gallery` that the command line names."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        sys.exit(0)
    elif name == "serve":
        importlib.import_module("rmgl_jax.gallery.serve_command").main(_gallery_first(rest))
    elif name in COMMANDS:
        command = COMMANDS[name]
        prog = f"rmgl gallery {name}"
        options = tyro.cli(command.options, prog=prog, args=_gallery_first(rest))
        silence_loggers()
        # Only JSON is on standard output, so that programs can read it.
        with report_errors(Console(stderr=options.json), options.debug):
            start_jax(DistributedOptions())
            # Orbax and Flax would bring the time of --help above 1.5 s.
            actions = importlib.import_module("rmgl_jax.gallery.actions")
            getattr(actions, command.action)(options)
    else:
        print(f"rmgl gallery has no command {name!r}.\n\n{usage()}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    """All subcommands, a line each."""
    serve = "search in a browser, on this machine"
    texts = {name: command.help for name, command in COMMANDS.items()} | {"serve": serve}
    return "\n".join(
        [
            "usage: rmgl gallery COMMAND GALLERY [OPTIONS]",
            "",
            "Galleries of person crops in a directory, or on a Milvus server by its URL.",
            "",
            *(f"  {name:<10}{text}" for name, text in texts.items()),
            "",
            "rmgl gallery COMMAND --help shows the options of a command.",
        ]
    )


def _gallery_first(arguments: Sequence[str]) -> list[str]:
    """Moves `--gallery LOCATION` to the place of the first argument."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == "--gallery" and index + 1 < len(rest):
            location = rest[index + 1]
            return [location, *rest[:index], *rest[index + 2 :]]
        if argument.startswith("--gallery="):
            return [argument.removeprefix("--gallery="), *rest[:index], *rest[index + 1 :]]
    return rest
