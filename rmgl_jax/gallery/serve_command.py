"""The command `rmgl gallery serve`: the search page of a gallery in a browser."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from data_prep.errors import InputError, MissingPackageError
from rmgl_jax.gallery.collection import COLLECTION
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TOKEN_LENGTH = 16  # characters of the shortest token


@dataclass(frozen=True)
class ServeOptions:
    """Serve the search page of a gallery, on this machine only unless --host says otherwise."""

    gallery: tyro.conf.Positional[str]
    """Directory of the gallery, or http://HOST:PORT of a Milvus server (also --gallery URL)."""
    port: int = 8000
    """Port of the page; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. One that other machines reach requires --token."""
    token: str | None = None
    """Secret of at least 16 characters that visitors must give."""
    model: Path | None = None
    """Run directory or model file; needed with a server, and for thresholds that a gallery made
    before the calibration does not have."""
    name: str = COLLECTION
    """Name of the collection on a server."""
    debug: bool = False
    """Show the traceback of every error."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl gallery serve`."""
    options = tyro.cli(ServeOptions, prog="rmgl gallery serve", args=arguments)
    console = Console()
    silence_loggers()
    with report_errors(console, options.debug):
        check_options(options)
        start_jax(DistributedOptions())
        serve(options, console)


def check_options(options: ServeOptions) -> None:
    """Refuses to open a gallery to other machines without a secret.

    Raises:
        InputError: the token is missing or too short, or the port is not one.
    """
    if not 0 <= options.port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, got {options.port}.")
    if options.token is None:
        if options.host not in _LOOPBACK:
            raise InputError(
                f"--host {options.host} opens the gallery to other machines: add --token with a "
                f"secret of at least {_TOKEN_LENGTH} characters."
            )
    elif len(options.token) < _TOKEN_LENGTH:
        raise InputError(
            f"--token must have at least {_TOKEN_LENGTH} characters, got {len(options.token)}."
        )


def serve(options: ServeOptions, console: Console) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: the address is not free.
        MissingPackageError: Starlette, uvicorn or python-multipart is not installed.
    """
    # Orbax and Flax would bring the time of --help above 1.5 s.
    from rmgl_jax.export.model_file import load_model
    from rmgl_jax.gallery.gallery import Gallery

    try:
        import python_multipart  # noqa: F401  Starlette imports it at the first upload.
        import uvicorn

        from rmgl_jax.gallery.page import make_app
    except ImportError as error:
        raise MissingPackageError(
            f"The search page needs {error.name}: pip install 'rmgl_jax[gallery]'."
        ) from error
    model = None if options.model is None else load_model(options.model)
    with (
        listen(options.host, options.port) as listener,
        Gallery.open(options.gallery, model, name=options.name) as gallery,
    ):
        app = make_app(
            gallery, options.token, names={*_LOOPBACK, options.host, socket.gethostname()}
        )
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        console.print(
            f"The gallery of {len(gallery):,} crops is at {address} (Ctrl-C ends this).",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        # The access log would have tokens in it.
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket of the server.

    Raises:
        InputError: the address is not free, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"Cannot listen on port {port} of {host}: {error.strerror or error}."
        ) from error
