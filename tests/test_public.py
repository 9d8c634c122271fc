"""What `import mechbench` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mechbench


def test_dir_lists_the_public_names_before_any_is_loaded() -> None:
    code = "import mechbench, sys; print(*dir(mechbench)); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names, torch_loaded = done.stdout.splitlines()
    assert sorted(names.split()) == sorted(mechbench.__all__)
    assert torch_loaded == "False"
    assert all(getattr(mechbench, name) is not None for name in mechbench.__all__)


def test_types_are_marked_as_such() -> None:
    assert (Path(mechbench.__file__).parent / "py.typed").exists()
