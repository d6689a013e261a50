"""Parts of the fault campaign: a tool that finds nothing must be known to find what is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import InputError
from tests.torture import table

# In a process of its own: the campaign forks, which a process with running JAX must not.
PROGRAM = """
import json, os, random, signal, sys, time
from pathlib import Path
import data_prep.command
from tests.torture import hostile_images, kills, processes
from tests.torture.scene import JOBS, Scene, measure, write_source

root = Path(sys.argv[1])
found = {}

def fail():
    raise ZeroDivisionError

def write_twice():
    Path("first").write_text("a")
    Path("second").write_text("b")

def write_much():
    with open("much", "w") as file:
        file.write("x" * 10000)

def ignore_interrupt():
    try:
        time.sleep(20)
    except KeyboardInterrupt:
        print("went on")

def become_another():
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(20)"])

(root / "work").mkdir()
def run(function, fault=None, timeout=60.0):
    return processes.run(function, (), root / "work", fault, timeout)

found["traceback"] = run(fail).defect
found["hang"] = run(lambda: time.sleep(20), timeout=0.2).defect
found["crash"] = run(lambda: os.kill(os.getpid(), signal.SIGSEGV)).defect
killed = run(become_another, processes.Fault(signal.SIGKILL, second=0.3))
found["new process"] = [killed.status, killed.seconds < 10]
found["undisturbed"] = [run(write_twice).status, sorted(os.listdir(root / "work"))]
for path in (root / "work").iterdir():
    path.unlink()
killed = run(write_twice, processes.Fault(signal.SIGKILL, 2))
found["killed"] = [killed.status, sorted(os.listdir(root / "work"))]
found["full"] = run(write_much, processes.Fault(operation=1, room=100)).status
interrupt = processes.Fault(signal.SIGINT, second=0.3)
found["interrupted"] = run(ignore_interrupt, interrupt).status

write_source(root / "base" / "source")
scene, job = Scene(root), JOBS["prepare"]
with scene.copy(job, "undisturbed") as directory:
    scene.references["prepare"] = measure("prepare", job, directory)
# The time of a fault may be after the end of a fast command.
for seed in range(9):
    record = kills.kill_and_repeat(scene, "prepare", random.Random(seed), f"kills {seed}")
    if record.outcome != "same" or record.count > 0:
        break
found["kills"] = [record.outcome, record.count > 0]
with scene.copy(job, "changed") as directory:
    (directory / "source/train/0001_c1_00.jpg").unlink()
    job.run(directory)
    found["changed"] = kills.compare(directory, job, scene.references["prepare"].content)

for kind in ("empty file", "palette"):
    for number in range(1000):
        directory = root / f"{kind} {number}"
        directory.mkdir()
        attempt = hostile_images.prepare_image(root / "base", directory, random.Random(number))
        if attempt.description.startswith(kind):
            break
    found[kind] = processes.run(attempt.function, attempt.arguments, directory).status
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the parts of the campaign say of known processes."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("torture"))],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_processes_name_the_defect(found):
    assert [found[name] for name in ("traceback", "hang", "crash")] == [
        "traceback",
        "hang",
        "crash",
    ]


def test_fault_strikes_before_the_operation(found):
    assert found["undisturbed"] == [0, ["first", "second"]]
    assert found["new process"] == [-9, True]
    assert found["killed"] == [-9, ["first"]]
    assert found["full"] == 1


def test_interrupted_process_that_goes_on_has_status_0(found):
    assert found["interrupted"] == 0


def test_preparation_survives_kills(found):
    assert found["kills"] == ["same", True]


def test_compare_finds_a_lost_image(found):
    assert len(found["changed"]) == 1
    assert found["changed"][0].startswith("different: data/folder/torture/1.0.0/")


def test_hostile_images_are_refused_or_accepted(found):
    assert [found["empty file"], found["palette"]] == [1, 0]


HEADER = {"commit": "abc", "seed": 7, "cores": 2, "machine": "x", "python": "3"}
RECORD = {"kind": "kills", "number": 0, "subject": "train", "fault": "SIGKILL", "detail": ""}
RECORDS = [
    RECORD | {"outcome": "same", "count": 4, "seconds": 30.0, "at": 30.0},
    RECORD | {"outcome": "lost", "count": 3, "seconds": 60.0, "at": 90.0, "number": 1},
]


def test_rows_count_good_faults_and_defects():
    assert table.rows(RECORDS) == [
        ("kills", "2", "7", "1.5", "4 same", "1 lost"),
        ("- train", "2", "7", "1.5", "4 same", "1 lost"),
    ]


def test_write_page_replaces_the_text_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_page(page, table.to_markdown(HEADER, RECORDS))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| kills | 2 | 7 | 1.5 | 4 same | 1 lost |" in text


def test_write_page_requires_the_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(InputError, match="campaign: begin"):
        table.write_page(page, "")
    assert page.read_text() == "nothing"


def test_reliability_page_has_the_markers():
    text = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
    assert text.count(table.BEGIN) == text.count(table.END) == 1
