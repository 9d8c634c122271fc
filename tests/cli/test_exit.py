from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import sys, threading, time
from mechbench import cli
threading.Thread(target=time.sleep, args=(1e6,), name="endless").start()
sys.argv = ["mechbench", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--nothing", 2)])
def test_threads_left_running_do_not_keep_the_command_from_ending(argument: str, code: int) -> None:
    """With its exit code, and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, argument],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert "mechbench" in done.stdout + done.stderr
    assert done.stderr.endswith("mechbench: warning: threads not waited for: endless\n")


PROGRAM = """
import atexit, sys
class Slow:
    def __del__(self):
        print("taken down")
sys.modules["torch"] = slow = Slow()
atexit.register(print, "at exit")
from mechbench import cli
sys.argv = ["mechbench", *sys.argv[1:]]
cli.program()
"""


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--nothing", 2)])
def test_program_ends_with_its_code_and_takes_torch_down_no_more(argument: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert "mechbench" in done.stdout + done.stderr
    assert done.stdout.endswith("at exit\n")


@pytest.mark.parametrize(("code", "expected"), [("0", 120), ("None", 120), ("3", 3)])
def test_program_says_by_its_code_that_output_was_lost(code: str, expected: int) -> None:
    lost = "import sys\nfrom mechbench import cli\nsys.stdout = open(1, 'w', closefd=False)\n"
    lost += f"sys.stdout.write('lost')\ncli._end({code})"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", lost], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == expected
    assert done.stderr == b""


def test_program_without_torch_ends_as_others_do() -> None:
    code = PROGRAM.replace('sys.modules["torch"] = ', "")
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.endswith("at exit\ntaken down\n")
