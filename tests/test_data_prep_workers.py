import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from data_prep.workers import map_chunks


def test_map_chunks_gives_results_in_order_from_other_processes():
    assert list(map_chunks(sorted, [], "nothing", processes=2)) == []
    items = list(range(300, 0, -1))
    sorted_chunks = list(map_chunks(sorted, items, "sorting", processes=2))
    assert [len(chunk) for chunk in sorted_chunks] == [128, 128, 44]
    assert [chunk[0] for chunk in sorted_chunks] == [173, 45, 1]
    assert list(map_chunks(sorted, items, "sorting")) == sorted_chunks


def test_map_chunks_spreads_few_items_over_the_processes():
    found = list(map_chunks(_process_ids, list(range(5)), "ids", processes=2))
    assert [len(ids) for ids in found] == [3, 2]
    processes = {process for ids in found for process in ids}
    assert len(processes) == 2
    assert os.getpid() not in processes
    # 1 works in this process.
    assert set(*map_chunks(_process_ids, [1, 2], "ids", processes=1)) == {os.getpid()}


def test_map_chunks_passes_big_chunks_and_results():
    # More than a pipe holds, in both directions.
    items = [bytes([number]) * 300_000 for number in range(6)]
    assert list(map_chunks(list, items, "bytes", processes=2)) == [items[:3], items[3:]]


def _process_ids(items):
    return [os.getpid() for _ in items]


def _print_and_double(items):
    print("not a result", flush=True)
    return [2 * item for item in items]


def test_map_chunks_keeps_prints_out_of_the_results(capfd):
    assert list(map_chunks(_print_and_double, [1, 2], "x", processes=2)) == [[2], [4]]
    assert capfd.readouterr().err.count("not a result") == 2


def _fail(items, how):
    if how == "exit":
        os._exit(3)
    raise FileNotFoundError(2, "no such item", str(items[0]))


def test_map_chunks_raises_the_exception_of_the_work():
    with pytest.raises(FileNotFoundError, match="no such item: '7'") as error:
        list(map_chunks(partial(_fail, how="raise"), [7, 8], "failing", processes=2))
    assert "in _fail" in error.value.__notes__[0]


def test_map_chunks_reports_a_dead_worker():
    with pytest.raises(RuntimeError, match="status 3"):
        list(map_chunks(partial(_fail, how="exit"), [7, 8], "failing", processes=2))


def _sleep(items):
    Path(items[0]).touch()
    time.sleep(60)


SLEEPING = """
import sys
from data_prep.workers import map_chunks
from tests.test_data_prep_workers import _sleep
list(map_chunks(_sleep, sys.argv[1:], "sleeping", processes=2))
"""


def children(process):
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_interrupted_map_chunks_ends_its_workers_at_once(tmp_path):
    files = [tmp_path / "1", tmp_path / "2"]
    command = [sys.executable, "-c", SLEEPING, *files]
    root = Path(__file__).parents[1]
    # A terminal interrupts the whole session, workers included.
    with subprocess.Popen(
        command, cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        while not all(file.exists() for file in files):
            assert run.poll() is None
            time.sleep(0.05)
        workers = children(run.pid)
        os.killpg(run.pid, signal.SIGINT)
        errors = run.communicate(timeout=30)[1]
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert errors.count("KeyboardInterrupt") == 1
