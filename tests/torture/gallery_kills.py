"""Kills `rmgl gallery add` at random moments, and compares the gallery with an undisturbed one.

    python -m tests.torture.gallery_kills IMAGES --model MODEL --kills 50

The command runs on a pseudoterminal, where it shows its progress. After each kill, the gallery must
have each image that the progress counted, and none twice; then the same command goes on. Once it
has ended, entries and embeddings must equal those of a gallery that was not disturbed, bit for bit.
Then the next gallery is begun, until the number of kills is reached.
"""

import argparse
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from rmgl_jax import Gallery, find_crops
from rmgl_jax.gallery.entries import Entry
from rmgl_jax.gallery.identify import identify

_COUNTED = re.compile(rb"(\d+)/(\d+|\?)")
_START = 60.0


class Command:
    """A running `rmgl gallery add` whose progress is read."""

    def __init__(self, gallery: Path, images: Path, model: Path) -> None:
        """Starts it."""
        words = ["gallery", "add", gallery, images, "--model", model, "--batch-size", "4"]
        self._terminal, other = pty.openpty()
        environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rmgl_jax", *map(str, words)],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
        )
        os.close(other)
        os.set_blocking(self._terminal, False)
        self.output = b""

    @property
    def counted(self) -> int:
        """Images that the progress counts."""
        return max((int(match[1]) for match in _COUNTED.finditer(self.output)), default=0)

    def read(self) -> None:
        """Reads what it has printed."""
        try:
            while part := os.read(self._terminal, 65_536):
                self.output += part
        except (BlockingIOError, OSError):
            # At its end, the terminal is closed.
            pass

    def wait(self, seconds: float, until_counting: bool = False) -> bool:
        """Waits; returns True once it has ended or, if that is asked, counts its first images."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            if self.process.poll() is not None or (until_counting and self.counted):
                self.read()
                return True
            time.sleep(0.002)
        return False

    def kill(self) -> None:
        """Kills it and reads the rest of its output."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.read()

    def close(self) -> None:
        """Closes the terminal."""
        os.close(self._terminal)


def content(gallery: Path) -> tuple[list[Entry], np.ndarray]:
    """Reads entries and embeddings in the order of the ids."""
    with Gallery.open(gallery) as opened:
        entries = list(opened.scan())
        found = opened._collection.embeddings([entry.id for entry in entries])
        return entries, np.stack([found[entry.id] for entry in entries])


def check(gallery: Path, order: list[str], counted: int) -> list[str]:
    """Checks a copy of an interrupted gallery; returns what is wrong."""
    copy = gallery.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(gallery, copy)
    if not (copy / "gallery.json").exists():
        return [f"no gallery, but {counted} images were counted"] if counted else []
    with Gallery.open(copy) as opened:
        found = Counter(entry.id for entry in opened.scan())
        size = len(opened)
    faults = [f"{id} is there {count} times" for id, count in found.items() if count > 1]
    if size != len(found):
        faults.append(f"the size is {size}, but there are {len(found)} images")
    if lost := set(order[:counted]) - found.keys():
        faults.append(f"{len(lost)} of {counted} counted images are lost")
    return faults


def main() -> None:
    """Runs the command line; status 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    entries = [identify(crop) for crop in find_crops([arguments.images])]
    order = [entry.id for entry in entries if isinstance(entry, Entry)]
    faults: list[str] = []
    kills = finished = while_adding = 0
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "undisturbed")
        command = Command(whole, arguments.images, arguments.model)
        command.wait(10 * _START, until_counting=True)
        began = time.monotonic()
        command.wait(10 * _START)
        command.close()
        seconds = time.monotonic() - began
        expected = content(whole)
        print(f"{len(expected[0])} images, {seconds:.1f} s of adding", flush=True)
        while kills < arguments.kills or (Path(scratch) / "gallery").exists():
            gallery = Path(scratch, "gallery")
            command = Command(gallery, arguments.images, arguments.model)
            killed = False
            if kills < arguments.kills:
                # One kill in ten hits before the first batch, at the start of the program.
                if rng.random() < 0.1:
                    ended = command.wait(rng.uniform(0.5, 6))
                else:
                    command.wait(_START, until_counting=True)
                    ended = command.wait(rng.uniform(0, 0.4 * seconds))
                killed = not ended
            if killed:
                command.kill()
                kills += 1
                while_adding += command.counted > 0
                wrong = check(gallery, order, command.counted) if gallery.exists() else []
                print(f"kill {kills}: {command.counted} counted {wrong or ''}", flush=True)
            else:
                command.wait(10 * _START)
                wrong = []
                if command.process.poll() != 0:
                    wrong = [command.output.decode(errors="replace")[-2000:]]
                else:
                    found = content(gallery)
                    if found[0] != expected[0]:
                        wrong.append("the entries differ")
                    elif not np.array_equal(found[1], expected[1]):
                        largest = np.abs(found[1] - expected[1]).max()
                        wrong.append(f"the embeddings differ by up to {largest:.2g}")
                finished += 1
                print(f"finished gallery {finished} {wrong or ''}", flush=True)
                shutil.rmtree(gallery)
            faults += wrong
            command.close()
    print(
        f"{kills} kills, {while_adding} of them after the first batch; {finished} galleries "
        f"finished; {len(faults)} faults"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
