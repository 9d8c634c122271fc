"""Running a plugin file: it can import the files beside it, and cannot end the program.

No torch.
"""

from __future__ import annotations

import ast
import os
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechbench.catalogue.sources import is_local
from mechbench.errors import PluginError


def execute(module: types.ModuleType, code: bytes, path: str | os.PathLike[str]) -> None:
    """Execute `code`, exactly these bytes, as `module`.

    Its folder stays on the import path, in last place, since an operator may import when it is
    called. It sees a command line without arguments: mechbench's own are not meant for it.

    Raises:
        PluginError: it raised, ended the program, or its import found another folder's file of the
            same name.
    """
    file = str(module.__file__)
    folder = str(Path(file).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    arguments, sys.argv = sys.argv, [file]
    held = _Held(sys.stderr)
    sys.stderr = held
    try:
        exec(compile(code, file, "exec"), module.__dict__)
        _check_neighbours(ast.parse(code), Path(folder))
    except PluginError as error:
        raise PluginError(_with(path, str(error))) from error
    except SystemExit as error:
        told = error.code if isinstance(error.code, str) else held.last_line()
        held.drop()
        raise PluginError(
            f"plugin {path} ended the program{_where(error, file)}"
            f"{f': {told}' if told else ''}; keep sys.exit and argparse below "
            "if __name__ == '__main__'"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())
        where = _where(error, file)
        raise PluginError(f"plugin {path} raised {type(error).__name__}{where}: {text}") from error
    finally:
        stream, sys.argv = held.release(), arguments
        if sys.stderr is held:
            sys.stderr = stream


def _with(path: str | os.PathLike[str], text: str) -> str:
    return text if str(path) in text else f"plugin {path}: {text}"


def _where(error: BaseException, file: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    return f" at line {line}" if line else ""


def _check_neighbours(tree: ast.AST, folder: Path) -> None:
    """Refuse an import that got another folder's file in place of the one beside the plugin.

    Raises:
        PluginError: there is such an import; both files are named.
    """
    for name in _top_level(tree):
        beside = next((p for p in (folder / f"{name}.py", folder / name / "__init__.py")
                       if p.is_file()), None)  # fmt: skip
        got = getattr(sys.modules.get(name), "__file__", None)
        if beside and isinstance(got, str) and is_local(got) and Path(got).resolve() != beside:
            raise PluginError(f"imports {name} and gets {got} instead of {beside}: rename one")


def _top_level(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


class _Held:
    """Standard error, held back until it is known whether the plugin ends the program.

    Logging handlers that the plugin connects to it keep writing through it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._texts = stream, []  # type: Any, list[str] | None

    def write(self, text: str) -> int:
        if self._texts is None:
            return int(self._stream.write(text))
        self._texts.append(text)
        return len(text)

    def last_line(self) -> str:
        lines = "".join(self._texts or ()).strip().splitlines()
        return lines[-1].strip() if lines else ""

    def drop(self) -> None:
        self._texts = []

    def release(self) -> Any:
        """Write what was kept, and return the stream itself."""
        texts, self._texts = self._texts, None
        if texts:
            self._stream.write("".join(texts))
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
