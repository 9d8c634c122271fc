from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch

from mechbench.errors import BusyError, ConfigError, ResultError
from mechbench.record.files import (
    discard_if_empty,
    exclusive,
    make_folder,
    set_aside,
    write_atomic,
    write_text,
)

HOLD = """
import sys, time
from pathlib import Path
from mechbench.record.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Refuse every byte written to a file, as the kernel does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def unchanged(path: Path) -> bool:
    return path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


def test_file_is_replaced_and_nothing_else_is_left(path: Path) -> None:
    write_text(path, "neu: \u00e4\n")
    assert path.read_bytes() == b"neu: \xc3\xa4\n"
    assert os.listdir(path.parent) == ["file"]


def test_file_may_be_read_by_whom_the_umask_allows(path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(path.with_name("shared"), "x")
    finally:
        os.umask(before)
    assert path.with_name("shared").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), KeyError("mine")])
def test_error_of_the_writer_passes_and_the_old_file_stands(
    path: Path, error: BaseException
) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as got:
        write_atomic(path, write)
    assert got.value is error
    assert unchanged(path)


def test_no_space_in_the_writer_names_the_file_and_the_reason(path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResultError, match=rf"cannot write {path}: No space left on device$"):
        write_atomic(path, write)
    assert unchanged(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_no_space_when_flushing_or_renaming(
    path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ResultError, match="No space left on device"):
        write_text(path, "new")
    assert unchanged(path)


@pytest.mark.parametrize("numbers", [10, 100_000])
def test_full_disk_under_torch_save_is_a_result_error_of_one_line(path: Path, numbers: int) -> None:
    data = {"weights": torch.ones(numbers)}
    with pytest.raises(ResultError, match=r"cannot write .*file: File too large$"), full_disk():
        write_atomic(path, lambda file: torch.save(data, file))
    assert unchanged(path)


def test_runtime_error_without_a_system_error_behind_it_is_cut_to_one_line(path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        raise RuntimeError("[enforce fail] unexpected pos\nframe 0\nframe 1")

    with pytest.raises(ResultError, match=r"\[enforce fail\] unexpected pos$"):
        write_atomic(path, write)
    assert unchanged(path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="No such file or directory"):
        write_text(tmp_path / "absent" / "file", "x")


def test_make_folder_makes_parents_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert os.listdir(tmp_path / "a" / "b") == []


def test_make_folder_on_a_file_is_an_error_of_the_user(path: Path) -> None:
    for taken in (path, path / "below"):
        with pytest.raises(ConfigError, match=f"cannot write to {taken}: "):
            make_folder(taken)
    assert unchanged(path)


def test_make_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0  # may write anywhere, and so becomes nobody
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(ConfigError, match="Permission denied"):
            make_folder(tmp_path)
    finally:
        if root:
            os.seteuid(0)


def test_make_folder_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(ConfigError, match=f"cannot write to {tmp_path}: Read-only file system"):
        make_folder(tmp_path)


def test_set_aside_never_overwrites_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for number in (1, 2, 3):
        path.write_text(str(number))
        assert set_aside(path) == tmp_path / f"result.json.corrupt-{number}"
        assert not path.exists()
    assert [p.read_text() for p in sorted(tmp_path.iterdir())] == ["1", "2", "3"]


def test_second_process_is_told_who_holds_the_folder_until_that_one_is_killed(
    tmp_path: Path,
) -> None:
    with holder(tmp_path) as process:
        with (
            pytest.raises(ResultError, match=rf"is in use by process {process.pid}: "),
            exclusive(tmp_path),
        ):
            pytest.fail("two hold one folder")
        process.kill()  # SIGKILL: no clean-up of its own
        process.wait()
        assert (tmp_path / ".holder").read_text() == str(process.pid)
        with exclusive(tmp_path):
            assert (tmp_path / ".holder").read_text() == str(os.getpid())
        assert os.listdir(tmp_path) == [".lock"]


def test_folder_is_free_again_after_an_error_inside(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
            _ = 1 / 0


def test_full_disk_at_the_lock_is_no_traceback(tmp_path: Path) -> None:
    with contextlib.suppress(ResultError), full_disk(), exclusive(tmp_path):
        pass


@pytest.mark.parametrize("target", ["there", "absent"])
def test_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path, target: str) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / target)
    (folder / ".holder").symlink_to(there)
    with pytest.raises(ResultError, match=r"is a symbolic link; remove it$"), exclusive(folder):
        pytest.fail("it was followed")
    (folder / ".lock").unlink()
    with exclusive(folder):
        assert (folder / ".holder").read_text() == str(os.getpid())
    assert there.read_text() == "precious"
    assert not (tmp_path / "absent").exists()


def test_holder_that_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        for text in ("", "../etc", "9" * 90):
            (tmp_path / ".holder").write_text(text)
            expected = "9" * 20 if text.isdigit() else "unknown"
            with pytest.raises(BusyError, match=f"by process {expected}: "), exclusive(tmp_path):
                pytest.fail("two hold one folder")


KILLED = """
import os, signal, sys
from pathlib import Path
from mechbench.record.files import exclusive, write_atomic

def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

with exclusive(Path(sys.argv[1])):
    write_atomic(Path(sys.argv[1]) / "result.json", write)
"""


def test_what_a_killed_writer_left_goes_when_the_folder_is_taken(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 3
    assert left[2].startswith(".result.json.")
    assert left[2].endswith(".tmp")
    (tmp_path / ".mine").touch()
    with exclusive(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == [".lock", ".mine"]


def test_a_lock_does_not_wait_for_the_disk_and_files_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    with exclusive(tmp_path):
        assert not waited
        write_text(tmp_path / "a", "a")
        assert len(waited) == 1


def test_only_an_empty_folder_is_discarded(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
    (full / "metrics.csv").touch()
    for folder in (empty, full):
        with exclusive(folder):
            discard_if_empty(folder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".lock", "full", "metrics.csv"]
