"""Where a result comes from. No torch at import."""

from __future__ import annotations

import datetime
import functools
import platform
import shlex
import subprocess
import sys
from pathlib import Path


def command_line() -> str:
    """Return the command as a user would type it, without the folder of the program."""
    name = Path(sys.argv[0]).name
    program = ["mechbench"] if name in ("mechbench", "__main__.py") else ["python", name]
    return shlex.join([*filter(None, program), *sys.argv[1:]])


def git_commit() -> str | None:
    """Return the commit of the mechbench checkout, with "+" if files differ; None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _first_commit() -> str | None:
    """Return the commit at the first look: the code that this process has loaded stays."""
    return git_commit()


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=root, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def provenance(device: str) -> dict[str, str | None]:
    """Return versions, machine, commit, date (UTC) and command."""
    import torch

    from mechbench import __version__

    cuda = device.startswith("cuda")
    return {
        "mechbench": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if cuda else f"CPU, {_threads()}",
        "git_commit": _first_commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command_line(),
    }


def _threads() -> str:
    import torch

    return f"{torch.get_num_threads()} threads"
