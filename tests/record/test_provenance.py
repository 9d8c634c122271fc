from __future__ import annotations

import datetime
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mechbench
from mechbench.record import provenance as module
from mechbench.record.provenance import command_line, git_commit, provenance

FIELDS = ["command", "date", "device", "git_commit", "mechbench", "platform", "python", "torch"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/home/ada/v/bin/mechbench", "run", "--seed", "1"], ["mechbench", "run", "--seed", "1"]),
        (["/home/ada/mechbench/__main__.py", "list"], ["mechbench", "list"]),
        (["/home/ada/sweep.py", "a b", "$x"], ["python", "sweep.py", "a b", "$x"]),
        (["/home/ada/my sweep.py"], ["python", "my sweep.py"]),
        (["-c"], ["python", "-c"]),
        ([""], ["python"]),
    ],
)
def test_command_can_be_typed_again_and_names_no_home_folder(
    argv: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert shlex.split(command_line()) == expected


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *args], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder look like the checkout that mechbench was imported from."""
    package = tmp_path / "mechbench" / "record"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(package / "provenance.py"))
    return tmp_path


def test_commit_has_a_plus_where_files_differ(checkout: Path) -> None:
    git(checkout, "init", "-q")
    assert git_commit() is None  # nothing committed yet
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert git_commit() == head
    (checkout / "notes.txt").write_text("untracked files decide nothing")
    assert git_commit() == head
    (checkout / "mechbench" / "record" / "provenance.py").write_text("# edited")
    assert git_commit() == head + "+"


def test_there_is_no_commit_outside_a_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "init", "-q")
    git(checkout, "commit", "-qm", "first", "--allow-empty")
    inner = checkout / "site-packages" / "mechbench" / "record"
    inner.mkdir(parents=True)
    # installed below somebody else's checkout
    monkeypatch.setattr(module, "__file__", str(inner / "provenance.py"))
    assert git_commit() is None


def test_there_is_no_commit_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".git").mkdir()
    monkeypatch.setenv("PATH", str(checkout))
    assert git_commit() is None


def test_record_is_complete() -> None:
    found = provenance("cpu")
    assert sorted(found) == FIELDS
    assert found["mechbench"] == mechbench.__version__
    assert found["torch"] == torch.__version__
    assert found["device"] == f"CPU, {torch.get_num_threads()} threads"
    date = datetime.datetime.fromisoformat(str(found["date"]))
    assert abs(datetime.datetime.now(datetime.UTC) - date) < datetime.timedelta(minutes=5)


def test_git_is_asked_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = provenance("cpu")["git_commit"]
    monkeypatch.setattr(module, "git_commit", lambda: "0" * 40)
    assert provenance("cpu")["git_commit"] == first
    module._first_commit.cache_clear()
    assert provenance("cpu")["git_commit"] == "0" * 40
    module._first_commit.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_record_names_the_gpu() -> None:
    assert provenance("cuda:0")["device"] == torch.cuda.get_device_name(0)
