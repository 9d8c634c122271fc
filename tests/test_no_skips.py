from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.gpu
@pytest.mark.skip("no CUDA device")
def test_gpu(): ...

@pytest.mark.skip("a package is missing")
def test_other(): ...

@pytest.mark.xfail(strict=True)
def test_known(): assert False

def test_passes(): ...
"""


def test_a_skipped_test_that_needs_no_gpu_fails_the_session(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_one')\n")
    for ci, code in (("", 0), ("true", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", tmp_path],
            env={**os.environ, "CI": ci, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
    _, told = done.stdout.split("only tests marked gpu may be")
    assert "test_one.py::test_other: Skipped: a package is missing" in told
    assert "test_module.py: Skipped: could not import 'no_such_one'" in told
    assert "test_gpu" not in told
