from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from mechbench.catalogue import registry
from mechbench.ops.triton import has_triton
from mechbench.training.devices import wake_autograd

# Derandomised: a failure in CI is the failure on a desk. Raise max_examples to search wider.
settings.register_profile(
    "mechbench", deadline=None, derandomize=True, max_examples=20, database=None
)
settings.load_profile("mechbench")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in a shell's background: the processes that tests start would not hear of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests run beside each other, on small tensors; and how a sum is rounded depends on the threads,
# so the processes that tests start have as many.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

_CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


@pytest.fixture(scope="session", params=["cpu", _CUDA])
def device(request: pytest.FixtureRequest) -> str:
    wake_autograd(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def untuned() -> Iterator[None]:
    """Give kernels of Triton that are loaded meanwhile their first configuration alone.

    Trying all of another package's takes minutes, and what they compute is the same.
    """
    if not has_triton():
        yield
        return
    from triton.runtime.autotuner import Autotuner

    make = Autotuner.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Autotuner,
            "__init__",
            lambda self, fn, names, configs, *rest, **named: make(
                self, fn, names, configs[:1], *rest, **named
            ),
        )
        yield


class _NoSkips:
    """Fails a session in which a test was skipped for another reason than a missing GPU."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and "gpu" not in report.keywords and not hasattr(report, "wasxfail"):
            self.skipped.append(f"{report.nodeid}: {report.longrepr[-1]}")  # type: ignore[index]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {report.longrepr[-1]}")  # type: ignore[index]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped, and only tests marked gpu may be", red=True)
            for line in self.skipped:
                terminalreporter.line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="fail if a test is skipped that is not marked gpu; always so where CI=true",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--no-skips"):
        config.pluginmanager.register(_NoSkips())


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers and loads."""
    for catalogue in registry.CATALOGUES.values():
        catalogue.names()  # discovered outside, so that a test's entries do not stay
        monkeypatch.setattr(catalogue, "entries", dict(catalogue.entries))
    plugins = dict(registry.PLUGIN_FILES)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a plugin's folder is appended
    yield
    registry.PLUGIN_FILES.clear()
    registry.PLUGIN_FILES.update(plugins)
    for name in [n for n in sys.modules if n.startswith("mechbench_plugin_")]:
        del sys.modules[name]
