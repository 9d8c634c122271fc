"""The command line as a user has it: a process of its own, started in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import mechbench as package
from mechbench.catalogue import registry
from mechbench.catalogue.registry import CATALOGUES
from mechbench.cli import main

# Limits the size of a file, then becomes python with the remaining arguments.
_LIMITED = (
    "import os, resource, sys\n"
    "limit = int(sys.argv[1])\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])\n"
)
_TIMEOUT_S = 600  # against a hang, not a slow machine
TINY = (
    "--seqlen", "8", "--vocab-size", "8", "--d-model", "8", "--budget", "4096",
    "--test-examples", "32", "--device", "cpu",
)  # fmt: skip
FINISHED = (
    "run", "--operator", "hyena", "--task", "recall", *TINY,
    "--eval-seqlen", "4", "--eval-seqlen", "16",
)  # fmt: skip
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class CommandLine:
    """`python -m mechbench` in `folder`."""

    folder: Path

    def start(
        self, *args: str, flags: Sequence[str] = (), file_limit: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a command; `flags` are python's, `file_limit` is in bytes a file."""
        limited = [] if file_limit is None else ["-c", _LIMITED, str(file_limit)]
        path = [str(Path(package.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        environment.pop("MECHBENCH_PLUGINS", None)
        return subprocess.Popen(
            [sys.executable, *limited, *flags, "-m", "mechbench", *args],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *args: str, flags: Sequence[str] = (), file_limit: int | None = None
    ) -> Done:
        """Run a command to its end."""
        with self.start(*args, flags=flags, file_limit=file_limit) as process:
            try:
                out, err = process.communicate(timeout=_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def together(self, *commands: Sequence[str]) -> list[Done]:
        """Run several commands, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda args: self(*args), commands))

    def works(self, *args: str) -> Done:
        """Run a command that must end well."""
        done = self(*args)
        assert done.returncode == 0, done.stderr
        return done

    def inside(self, *args: str) -> Done:
        """Run a command to its end in this process, which spares the imports."""
        out, err, before = io.StringIO(), io.StringIO(), list(sys.argv)
        entries = [(c, dict(c.entries)) for c in CATALOGUES.values() if c.names()]
        plugins = dict(registry.PLUGIN_FILES)
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            sys.argv[:] = ["mechbench", *args]
            try:
                code = exit_code()
            finally:
                sys.argv[:] = before
                for catalogue, kept in entries:
                    catalogue.entries = kept
                registry.PLUGIN_FILES.clear()
                registry.PLUGIN_FILES.update(plugins)
                for module in [m for m in sys.modules if m.startswith("mechbench_plugin_")]:
                    del sys.modules[module]
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

    def error(self, *args: str) -> str:
        """Run a command that must be refused, in this process; return its message."""
        return error_of(self.inside(*args))


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["mechbench", *args])
    return exit_code()


def exit_code() -> int:
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def lines(text: str) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


def error_of(done: Done) -> str:
    """Return the message of a command that ended as every error of use does: in one line."""
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(lines(done.stderr)) == 1, done.stderr
    (line,) = lines(done.stderr)
    assert line.startswith("mechbench: error: ")
    return line.removeprefix("mechbench: error: ")


@pytest.fixture
def mechbench(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def mechbench_of_module(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> CommandLine:
    """In a folder that the tests of one file share."""
    return CommandLine(tmp_path_factory.mktemp(Path(request.node.name).stem))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `runs` of one finished command, FINISHED; copy it, to change it.

    In `imports` is what the command imported, as `python -X importtime` tells it.
    """
    folder = tmp_path_factory.mktemp("finished")
    done = CommandLine(folder)(*FINISHED, flags=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    (folder / "imports").write_text(done.stderr, encoding="utf-8")
    return folder
