"""Do the images decode? Answered by decoding every one, in several processes."""

import io
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain

from PIL import Image, ImageOps

from data_prep.listing import Encoded
from data_prep.progress import track

# The formats the file suffixes promise. Naming them also keeps Pillow from handing a mislabeled
# file to a plugin that starts another program (EPS does).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_CHUNK = 128
# Starting processes costs about as much as decoding this many images.
_FEW = 1024


def image_problem(path: Encoded) -> str | None:
    """Why a file is not a whole image, or None if it is one."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except ValueError as error:
        return str(error)
    if not encoded:
        return "is empty"
    try:
        with warnings.catch_warnings():
            # Odd metadata is harmless, pixels by the hundred million are not.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                # All that a reader does, which includes turning it by its EXIF tag.
                ImageOps.exif_transpose(image).convert("RGB")
    except Image.UnidentifiedImageError:
        return f"is not an image ({len(encoded)} bytes, none of {', '.join(FORMATS)})"
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        return f"does not decode ({type(error).__name__}: {error})"
    return None


def _check_chunk(paths: list[Encoded]) -> list[tuple[Encoded, str]]:
    found = ((path, image_problem(path)) for path in paths)
    return [(path, problem) for path, problem in found if problem]


def bad_images(
    paths: Sequence[Encoded], description: str, processes: int | None = None
) -> list[tuple[Encoded, str]]:
    """Every file that does not decode as an image, with the reason, in the order given.

    Args:
      paths: the files.
      description: label of the progress bar.
      processes: how many decode side by side; None is one for each core.
    """
    processes = processes or _cores()
    chunks = [list(paths[i : i + _CHUNK]) for i in range(0, len(paths), _CHUNK)]
    sizes = [len(chunk) for chunk in chunks]
    if processes == 1 or len(paths) < _FEW:
        checked = map(_check_chunk, chunks)
        return list(chain.from_iterable(track(checked, sizes, description)))
    # Not fork: the caller may run threads (JAX does), and a forked copy of those can hang.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            checked = pool.map(_check_chunk, chunks)
            return list(chain.from_iterable(track(checked, sizes, description)))
        except BaseException:
            # Or leaving would wait for every chunk.
            pool.shutdown(cancel_futures=True)
            raise


def _cores() -> int:
    # Not everywhere: macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
