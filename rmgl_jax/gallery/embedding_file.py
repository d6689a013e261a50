"""Files of embeddings, `.npz` or Parquet, written batch by batch.

Memory does not grow with the number of embeddings. The file appears when it is complete.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from data_prep.errors import InputError, MissingPackageError
from data_prep.files import check_output, expand, replacing
from rmgl_jax.evaluation.projection import Precision, reduce_precision
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.entries import check_text

Append: TypeAlias = Callable[[Sequence[Crop], np.ndarray], None]
"""Appends b crops and their embeddings, float32 [b, E]."""
SUFFIXES = (".npz", ".parquet")
"""Suffixes of the files that can be written."""
_ROWS = 4096  # Rows of an `.npz` file that are converted at once.
_VALUES = 2**20  # Values of a Parquet row group, 4 MiB as float32.


def write_embeddings(
    path: Path, width: int, precision: Precision = "float32"
) -> AbstractContextManager[Append]:
    """Opens a file of embeddings for writing; it appears at the end of the block, if no error did.

    An `.npz` file has the arrays `embedding` [M, E] and `path` [M], and those of the following of
    which anything is known: `pid` int64 [M], -1 where unknown; `camid` int64 [M], -1 where unknown,
    or `camera`, text [M], if a camera is not a number; `box` int32 [M, 4] (left, top, right,
    bottom), -1 where the whole image is the crop. With `int8` it also has `scale` float32 [M].
    A Parquet file has a row for each crop with all its fields, null where unknown.

    Args:
        path: file to write, `.npz` or `.parquet`; replaced if it exists.
        width: E.
        precision: type of the values; see `reduce_precision`.

    Raises:
        InputError: the suffix is another one, or the path is that of a directory.
        WriteError: its directory cannot be made.
        MissingPackageError: Parquet requires a package that is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"A file of embeddings must end in {' or '.join(SUFFIXES)}, got {path}.")
    path = expand(path)
    check_output(path)
    writer = _write_npz if path.suffix == ".npz" else _write_parquet
    return writer(path, width, precision)


def check_storable(crop: Crop, output: Path) -> None:
    """Checks that the texts of a crop can be written to `output`, before anything is computed.

    Raises:
        InputError: a text is not valid Unicode, as names of files need not be, and `output` is a
            Parquet file. An `.npz` file holds any name.
    """
    if output.suffix == ".parquet":
        for text in (str(crop.path), crop.camera, *crop.labels):
            check_text("A path, camera or label in a Parquet file", text)


@contextmanager
def _write_npz(path: Path, width: int, precision: Precision) -> Iterator[Append]:
    with replacing(path) as temporary, ExitStack() as stack:

        def spool() -> IO[bytes]:
            # Without a name: nothing is left if the process is killed.
            return stack.enter_context(tempfile.TemporaryFile(dir=path.parent))

        values, scales, rows = spool(), spool(), spool()

        def append(crops: Sequence[Crop], embeddings: np.ndarray) -> None:
            reduced, scale = reduce_precision(embeddings, precision)
            values.write(reduced.tobytes())
            if scale is not None:
                scales.write(scale.tobytes())
            for crop in crops:
                row = (str(crop.path), crop.pid, crop.camera, crop.box)
                rows.write(json.dumps(row).encode() + b"\n")

        yield append
        # Sizes and types are known only now: of the longest path, for instance.
        count = longest = longest_camera = 0
        any_pid = any_camera = any_box = False
        numbered = True
        for name, pid, camera, box in _read(rows):
            count += 1
            longest = max(longest, len(name))
            longest_camera = max(longest_camera, len(camera))
            any_pid, any_box = any_pid or pid is not None, any_box or box is not None
            any_camera = any_camera or camera != ""
            numbered = numbered and (camera == "" or _is_number(camera))
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:

            def column(name: str, dtype: str, value: Callable[..., Any], *shape: int) -> None:
                with _member(archive, name, np.dtype(dtype), (count, *shape)) as member:
                    for part in _parts(rows):
                        member.write(np.array([value(*row) for row in part], dtype).tobytes())

            with _member(archive, "embedding", np.dtype(precision), (count, width)) as member:
                _copy(values, member)
            if precision == "int8":
                with _member(archive, "scale", np.dtype("float32"), (count,)) as member:
                    _copy(scales, member)
            column("path", f"<U{max(longest, 1)}", lambda name, *_: name)
            if any_pid:
                column("pid", "<i8", lambda _, pid, *__: -1 if pid is None else pid)
            if any_camera and numbered:
                column("camid", "<i8", lambda _, __, camera, ___: int(camera or -1))
            elif any_camera:
                column("camera", f"<U{longest_camera}", lambda _, __, camera, ___: camera)
            if any_box:
                column("box", "<i4", lambda *row: row[3] or (-1,) * 4, 4)


def _is_number(camera: str) -> bool:
    # "01" is another camera than "1".
    is_number = camera.isascii() and camera.isdecimal() and len(camera) < 19
    return is_number and str(int(camera)) == camera


def _read(rows: IO[bytes]) -> Iterator[list[Any]]:
    rows.seek(0)
    return map(json.loads, rows)


def _parts(rows: IO[bytes]) -> Iterator[list[list[Any]]]:
    part = []
    for row in _read(rows):
        part.append(row)
        if len(part) == _ROWS:
            yield part
            part = []
    if part:
        yield part


def _copy(spool: IO[bytes], member: IO[bytes]) -> None:
    spool.seek(0)
    shutil.copyfileobj(spool, member, 2**20)


@contextmanager
def _member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[IO[bytes]]:
    """Opens an array of an `.npz` file for writing its values."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        yield member


@contextmanager
def _write_parquet(path: Path, width: int, precision: Precision) -> Iterator[Append]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackageError(
            "Parquet files require pyarrow: pip install 'rmgl_jax[parquet]'."
        ) from error
    value = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}[precision]
    fields = [("path", pa.string())]
    fields += [(name, pa.int32()) for name in ("left", "top", "right", "bottom")]
    fields += [("pid", pa.int64()), ("camera", pa.string())]
    fields += [("time", pa.timestamp("us", tz="UTC")), ("labels", pa.list_(pa.string()))]
    fields += [("embedding", pa.list_(value, width))]
    if precision == "int8":
        fields.append(("scale", pa.float32()))
    schema = pa.schema(fields)

    def to_table(crops: Sequence[Crop], embeddings: np.ndarray) -> pa.Table:
        reduced, scale = reduce_precision(embeddings, precision)
        flat = pa.array(reduced.reshape(-1), value)
        columns = [pa.array([str(crop.path) for crop in crops])]
        edges = [crop.box or (None,) * 4 for crop in crops]
        columns += [pa.array([edge[i] for edge in edges], pa.int32()) for i in range(4)]
        columns += [
            pa.array([crop.pid for crop in crops], pa.int64()),
            pa.array([crop.camera or None for crop in crops], pa.string()),
            pa.array([_moment(crop.time) for crop in crops], schema.field("time").type),
            pa.array([crop.labels for crop in crops], schema.field("labels").type),
            pa.FixedSizeListArray.from_arrays(flat, width),
        ]
        if scale is not None:
            columns.append(pa.array(scale))
        return pa.Table.from_arrays(columns, schema=schema)

    # Embeddings do not repeat, so that a dictionary of their values would be as large again.
    columns = ["path", "camera"]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=columns) as writer,
    ):
        waiting: list[tuple[Sequence[Crop], np.ndarray]] = []

        def flush() -> None:
            if waiting:
                crops = [crop for part, _ in waiting for crop in part]
                writer.write_table(to_table(crops, np.concatenate([rows for _, rows in waiting])))
                waiting.clear()

        def append(crops: Sequence[Crop], embeddings: np.ndarray) -> None:
            waiting.append((crops, embeddings))
            if width * sum(len(part) for part, _ in waiting) >= _VALUES:
                flush()

        yield append
        flush()


def _moment(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, UTC)
