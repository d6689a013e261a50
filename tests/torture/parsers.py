"""Parsers of untrusted bytes, as functions that fuzzers call: expected errors are no finding."""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from data_prep.errors import ExpectedError


def names(data: bytes) -> None:
    """File names of images."""
    from data_prep.names import find_camera, is_image_name, parse_market_name, parse_own_name

    name = data.decode(errors="surrogateescape")
    for parse in (is_image_name, parse_market_name, parse_own_name, find_camera):
        parse(name)


def lists(data: bytes) -> None:
    """MSMT17's lists of images."""
    from data_prep.listing import Listing
    from data_prep.msmt17.msmt17_dataset_builder import read_list

    with _file(data, "list.txt") as path:
        read_list(path, path.parent, Listing())


def matlab(data: bytes) -> None:
    """CUHK03's protocol."""
    from data_prep.cuhk03_np.matlab import list_matlab

    with _file(data, "protocol.mat") as path:
        list_matlab(path.parent / "cuhk-03.mat", path, "labeled")


def weights(data: bytes) -> None:
    """Model files, up to their configuration."""
    from rmgl_jax.export.model_file import load_model

    with _file(data, "model.safetensors") as path:
        load_model(path)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "names": names,
    "lists": lists,
    "matlab": matlab,
    "weights": weights,
}


def expected(parser: Callable[[bytes], None], data: bytes) -> None:
    """Calls a parser; anything but an expected error is raised."""
    with contextlib.suppress(ExpectedError):
        parser(data)


class _file:
    """A temporary file with some bytes."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.directory = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        path = Path(self.directory.__enter__()) / self.name
        path.write_bytes(self.data)
        return path

    def __exit__(self, *error: object) -> None:
        self.directory.cleanup()


def seeds(parser: str, base: Path) -> list[bytes]:
    """Valid inputs of a parser, to start from."""
    if parser == "names":
        words = (
            "0002_c1s1_000451_03.jpg",
            "-1_c3s2_000018_02.jpg",
            "7_cam3_15.png",
            "shop_cam3.png",
        )
        return [word.encode() for word in words]
    if parser == "lists":
        return [b"0000/0000_045_12_0303morning_0006_2.jpg 0\n0001/0001_000_01_x_0.jpg 12\n"]
    if parser == "matlab":
        import scipy.io

        from tests.torture.hostile_arrays import protocol_arrays

        stream = io.BytesIO()
        scipy.io.savemat(stream, protocol_arrays())
        return [stream.getvalue()]
    return [(base / "model.safetensors").read_bytes()]
