"""Atomic writing of files, and folders that only one process at a time may use. No torch."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mechbench.errors import BusyError, ConfigError, ResultError

_LOCK, _HOLDER = ".lock", ".holder"  # lock file of a folder; process id of its holder
_TEMPORARY = ".tmp"  # suffix of a file that is being written


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomic(path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
    """Write a file beside `path`, flush it to disk and rename it over `path`.

    Args:
        path: of the file.
        write: writes its contents.
        durable: wait for the disk; without that the file may be empty after a power failure.

    Raises:
        ResultError: no space left, or the folder cannot be written; `path` is left unchanged.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(_TEMPORARY, f".{path.name}.", path.parent)
        with os.fdopen(descriptor, "wb") as file:
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's own mode shuts others out
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ResultError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:  # torch.save reports a full disk this way
        cause = error.__context__
        text = (cause.strerror if isinstance(cause, OSError) else None) or str(error).split("\n")[0]
        raise ResultError(f"cannot write {path}: {text}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8, line feeds) atomically.

    Raises:
        ResultError: as `write_atomic`.
    """
    write_atomic(path, lambda file: file.write(text.encode()))


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and make sure that it can be written to.

    Raises:
        ConfigError: it is a file, or we may not write to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {path}: {error.strerror or error}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file to NAME.corrupt-1, -2, ... and return the new path."""
    number = 1
    while (target := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    path.rename(target)
    return target


def discard_if_empty(folder: Path) -> None:
    """Remove a folder that this process holds if nothing was stored in it."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {_LOCK, _HOLDER}:
            for name in (_LOCK, _HOLDER):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock is released however the process ends.

    Half-written files left by killed writers are removed.

    Raises:
        BusyError: another process holds it.
        ResultError: the lock cannot be made.
    """
    from filelock import FileLock, Timeout  # slow to import, and most readers need no lock

    path, holder = folder / _LOCK, folder / _HOLDER
    if path.is_symlink():  # older versions of filelock follow it and empty its target
        raise ResultError(f"cannot lock {folder}: {path.name} is a symbolic link; remove it")
    lock = FileLock(path, mode=0o666 & ~_umask())
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"{folder} is in use by process {_read_holder(holder)}: the same run is already "
            "in progress; wait for it, or change a setting"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultError(f"cannot lock {folder}: {reason}") from error
    try:
        for left in folder.glob(f".*{_TEMPORARY}"):
            with contextlib.suppress(OSError):
                left.unlink()
        # Naming the holder is a courtesy; if the disk is full, the writes that matter will say so.
        with contextlib.suppress(ResultError):
            write_atomic(holder, lambda file: file.write(b"%d" % os.getpid()), durable=False)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:20].strip()
    except OSError:
        return "unknown"
    return text if text.isdigit() else "unknown"
