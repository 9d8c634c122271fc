from __future__ import annotations

import io
import sys

import pytest

from mechbench.console.progress_bar import Console, in_notebook

ROW = {"seqlen": 64, "loss": 1.23456, "train_accuracy": 0.5, "validation_accuracy": None}


def drive(console: Console) -> None:
    console.say("a word")
    with console.bar(1000, 250, "hyena on recall at 64") as bar:
        bar.advance(250)
        bar.row(ROW)
        bar.row(ROW | {"validation_accuracy": 0.75})


def test_quiet_console_prints_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    drive(console)
    assert capsys.readouterr() == ("", "")
    console.warn("look out")
    assert capsys.readouterr() == ("", "mechbench: warning: look out\n")


def test_bar_starts_where_the_run_does_and_shows_the_latest_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive(Console(quiet=False))
    out, err = capsys.readouterr()
    assert out == ""  # standard output is for results
    assert err.startswith("a word\n")
    frames = err.split("\r")
    assert " 25%|" in err
    assert any("acc=0.500, loss=1.235, seqlen=64, val=-" in f for f in frames)
    assert "acc=0.500, loss=1.235, seqlen=64, val=0.750" in frames[-1]
    assert frames[-1].startswith("hyena on recall at 64:  50%|")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "quiet"), [(Terminal, False), (io.StringIO, True)])
def test_terminal_decides_where_nobody_says(
    stream: type[io.StringIO], quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    assert Console().quiet is quiet
    assert Console(not quiet).quiet is not quiet


def test_bar_is_closed_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Console(quiet=False).bar(10, 0, "title"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.endswith("\n")  # the next line starts on its own


class Notebook:
    """IPython, as far as it is asked."""

    kernel: object = None

    def get_ipython(self) -> Notebook:
        return self


@pytest.mark.parametrize("kernel", [None, object()])
def test_a_notebook_shows_bars_and_ipython_in_a_pipe_none(
    kernel: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not in_notebook()
    shell = Notebook()
    shell.kernel = kernel
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert in_notebook() == (kernel is not None)
    drive(Console())
    assert (" 25%|" in capsys.readouterr().err) == (kernel is not None)
