"""Check that image files decode, by decoding every one of them."""

import io
import warnings
from collections.abc import Sequence
from itertools import chain

from PIL import Image, ImageOps

from data_prep.listing import Encoded
from data_prep.workers import map_chunks

# The formats of the accepted file suffixes. Naming them also keeps Pillow from giving a mislabeled
# file to a plugin that starts another program (EPS does).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


def image_problem(path: Encoded) -> str | None:
    """Says what is wrong with an image file; None if it is whole."""
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


def bad_images(
    paths: Sequence[Encoded], description: str, processes: int | None = None
) -> list[tuple[Encoded, str]]:
    """Finds every file that does not decode as an image, with the reason, in the order given.

    Args:
      paths: the files.
      description: label of the progress bar.
      processes: number of processes that decode; see `map_chunks`.
    """
    return list(chain.from_iterable(map_chunks(_check_chunk, paths, description, processes)))


def _check_chunk(paths: Sequence[Encoded]) -> list[tuple[Encoded, str]]:
    found = ((path, image_problem(path)) for path in paths)
    return [(path, problem) for path, problem in found if problem]
