"""Adds images to a gallery, prints each path once added, and is killed: GALLERY BATCHES IMAGE...

The kill hits at a random moment of the batch after BATCHES batches of 3 images.
"""

import os
import random
import signal
import sys
import threading
from pathlib import Path

from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.gallery import Gallery
from tests.tiny_gallery import MODEL


def main(location: str, batches: int, paths: list[str]) -> None:
    with Gallery.open(location, MODEL, create=True) as gallery:
        for number in range(len(paths) // 3):
            if number == batches:
                delay = random.Random(batches).uniform(0, 0.05)
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            chunk = paths[3 * number : 3 * number + 3]
            gallery.add([Crop(Path(path)) for path in chunk])
            if number < batches:
                print(*chunk, sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
