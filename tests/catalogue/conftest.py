from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "plugin.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
