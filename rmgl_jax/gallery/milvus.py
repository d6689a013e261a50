"""Connections to Milvus: Milvus Lite in a directory, or a server.

Milvus Lite opens a directory inside this process; a URL is that of a server. Both have the same
client.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_prep.errors import InputError, MissingPackageError, WriteError

# Connections of the directory's own server are local: a proxy could not reach them.
_LOCAL_OPTIONS = {"grpc.enable_http_proxy": 0}


def is_url(location: str) -> bool:
    """Tells whether a location is the URL of a server, not a directory."""
    return "://" in location


def _lite_directory(location: str) -> str:
    return os.path.join(location, "milvus.db")


def remove_half_written(directory: str) -> None:
    """Removes what Milvus Lite may have half written when its process ended, and writes again.

    These are indexes, which it does not write atomically, and directories of collections without
    any content: it finds a collection by its schema, and does not make one whose directory exists.
    """
    for collection in Path(_lite_directory(directory), "collections").glob("*"):
        for indexes in collection.glob("partitions/*/indexes"):
            shutil.rmtree(indexes)
        if {path.name for path in collection.iterdir()} <= {"schema.json.tmp"}:
            shutil.rmtree(collection)


def connect(location: str) -> Any:
    """Opens a directory or connects to a server, and returns the `MilvusClient`.

    Raises:
        MissingPackageError: pymilvus or Milvus Lite is not installed.
        InputError: the server cannot be reached, or the directory cannot be opened.
    """
    try:
        from pymilvus import MilvusClient

        if not is_url(location):
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"A gallery needs the package {error.name}: pip install 'rmgl_jax[gallery]'."
        ) from error
    # Their logs repeat with a traceback every error that they raise.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if is_url(location):
        try:
            _ = urlsplit(location).port
        except ValueError as error:
            raise InputError(f"{location} is not the URL of a Milvus server: {error}.") from error
    with milvus_errors(location):
        if is_url(location):
            return MilvusClient(location)
        return MilvusClient(_lite_directory(location), grpc_options=_LOCAL_OPTIONS)


def disconnect(client: Any, location: str) -> None:
    """Closes the connection and, of a directory, writes the log's rows into segments."""
    client.close()
    if not is_url(location):
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(_lite_directory(location))


@contextmanager
def milvus_errors(location: str) -> Iterator[None]:
    """Turns errors of Milvus that a user can mend into expected errors.

    Raises:
        InputError: the server cannot be reached, or the directory cannot be opened or was closed.
        WriteError: the disk is full.
    """
    from pymilvus import MilvusException
    from pymilvus.exceptions import ConnectionConfigException

    try:
        yield
    except ConnectionConfigException as error:
        what = "is not the URL of a Milvus server" if is_url(location) else "cannot be opened"
        raise InputError(f"{location} {what}: {error.message}.") from error
    except MilvusException as error:
        for number in (ENOSPC, EDQUOT, EFBIG):
            if os.strerror(number) in error.message:
                raise WriteError(
                    f"{location} cannot be written: {os.strerror(number)}. What was added before "
                    "is kept."
                ) from error
        if "should create connection first" in error.message:
            raise InputError(f"The gallery {location} is closed.") from error
        if "server unavailable" in error.message:
            raise InputError(f"The Milvus server {location} cannot be reached.") from error
        raise
