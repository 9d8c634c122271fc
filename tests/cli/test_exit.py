from __future__ import annotations

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
