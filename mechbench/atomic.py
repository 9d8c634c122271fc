"""Files that are either whole or absent, and a folder that one process owns at a time. No torch."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mechbench.errors import BusyError, ConfigError, ResultError

try:
    import fcntl
except ImportError:  # Windows: atomic writes hold, the lock does not
    fcntl = None  # type: ignore[assignment]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside `path`, flush it to disk and rename it over `path`.

    Raises:
        ResultError: no space left, or the folder cannot be written; `path` is as it was.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's own mode shuts others out
            write(file)
            file.flush()
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
    """Create a folder and its parents, and make sure that it can be written.

    Raises:
        ConfigError: it is a file, or not ours to write.
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


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock goes with the process, however it ends.

    Raises:
        BusyError: another process holds it.
        ResultError: the lock cannot be made.
    """
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ResultError(f"cannot lock {folder}: {error.strerror or error}") from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                raise BusyError(
                    f"{folder} is in use by process {holder or 'unknown'}: the same run is "
                    "already going; wait for it, or change a setting"
                ) from None
        # Who holds it is a courtesy: a full disk is found by what has to be written.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
