from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.conftest import FINISHED, TINY, CommandLine, Done, error_of, lines

HYENA = ("run", "--operator", "hyena", "--task", "recall")
# Steps enough to break into, at some 30 ms a step.
STEPS = 64
LONG = (*HYENA, *TINY, "--budget", str(STEPS * 64 * 10))
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
# Of a result, what a clock or the machine decides.
VARYING = ("seconds", "tokens_per_s", "peak_memory_mib", "provenance")
BAD = """
import torch
import mechbench


class Base(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()


@mechbench.register_operator("raises")
class Raises(Base):
    def forward(self, u):
        raise ValueError("cannot\\nmix")


@mechbench.register_operator("misshapen")
class Misshapen(Base):
    def forward(self, u):
        return u[:, 1:]


@mechbench.register_operator("nan")
class Nan(Base):
    def forward(self, u):
        return u / 0 * 0


@mechbench.register_operator("ahead")
class Ahead(Base):
    def forward(self, u):
        return u.roll(-1, 1)
"""
BAD_OPERATORS = {  # and how the message begins
    "raises": "operator 'raises' raised ValueError at line 14 of its file: cannot mix",
    "misshapen": "operator 'misshapen' returned shape (1, 9, 8): expected (1, 10, 8)",
    "nan": "operator 'nan' gives NaN or infinity at 10 tokens",
    "ahead": "operator 'ahead' is not causal: output ",
}


def bad(operator: str) -> tuple[str, ...]:
    return ("run", "--operator", operator, "--task", "recall", *TINY, "--plugin", "bad.py")


def the_result(folder: Path) -> dict[str, Any]:
    """Return what the only result below `folder` says, whenever and however it was obtained."""
    (path,) = folder.rglob("result.json")
    with path.with_name("metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k not in VARYING}
    timed = ("tokens_per_s", "train_s")
    return kept | {"rows": [{k: v for k, v in row.items() if k not in timed} for row in rows]}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--operator", "hyna", "--task", "recall"),
            "unknown operator 'hyna': did you mean 'hyena'? choose from: ",
        ),
        (
            ("--operator", "hyena", "--task", "recal"),
            "unknown task 'recal': did you mean 'recall'? choose from: ",
        ),
        ((*HYENA[1:], "--seqlen", "0"), "seqlen is 0: expected at least 1"),
        ((*HYENA[1:], "--seqlen", "-8"), "seqlen is -8: expected at least 1"),
        ((*HYENA[1:], "--seqlen", "7"), "seqlen is 7: recall needs an even number"),
        ((*HYENA[1:], "--seqlen", "8", "--eval-seqlen", "9"), "seqlen is 9: recall needs an even"),
        (
            ("--operator", "hyena", "--task", "induction", "--seqlen", "2"),
            "seqlen is 2: induction of 1 token(s) needs at least 3",
        ),
        ((*HYENA[1:], "--vocab-size", "3"), "vocab_size is 3: recall needs at least 4"),
        ((*HYENA[1:], "--lr", "0"), "lr is 0.0: expected a positive number"),
        ((*HYENA[1:], "--option", "order"), "--option 'order' is not of the form key=value"),
        ((*HYENA[1:], "--task-option", "distance=1"), "did you mean 'min_distance'? choose from"),
        ((*HYENA[1:], "--sequence", "8"), "No such option"),
        (("--operator", "hyena"), "Missing option '--task'"),
    ],
)
def test_bad_arguments_are_one_line(
    mechbench: CommandLine, args: tuple[str, ...], message: str
) -> None:
    assert message in mechbench.error("run", *args)
    assert not list(mechbench.folder.iterdir())


def test_unknown_command_is_one_line_with_the_nearest(mechbench: CommandLine) -> None:
    assert mechbench.error("rum", "--operator", "hyena").startswith(
        "unknown command 'rum': did you mean 'run'? choose from: "
    )


@pytest.mark.parametrize(
    "args",
    [
        ("run", "--operator", "hyna", "--task", "recall"),
        (*HYENA, "--seqlen", "7"),
        (*HYENA, "--vocab-size", "3"),
        (*HYENA, "--plugin", "none.py"),
        ("rum",),
    ],
)
def test_bad_arguments_need_no_torch(mechbench: CommandLine, args: tuple[str, ...]) -> None:
    done = mechbench(*args, flags=("-X", "importtime"))
    assert done.returncode == 2
    assert lines(done.stderr)[-1].startswith("mechbench: error: ")
    loaded = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "click" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py", None, "plugin none.py cannot be read: No such file or directory"),
        ("folder.py", "", "plugin folder.py cannot be read: Is a directory"),
        ("plugin.txt", "x = 1\n", "plugin plugin.txt is not a Python file"),
        ("raises.py", "\n1 / 0\n", "plugin raises.py raised ZeroDivisionError at line 2: "),
        ("syntax.py", "def f(:\n", "plugin syntax.py raised SyntaxError at line 1: "),
        ("idle.py", "x = 1\n", "plugin idle.py registers nothing: decorate a class with "),
    ],
)
def test_unsound_plugin_is_one_line_that_names_the_file(
    mechbench: CommandLine, name: str, text: str | None, message: str
) -> None:
    if text:
        (mechbench.folder / name).write_text(text)
    elif text is not None:
        (mechbench.folder / name).mkdir()
    assert mechbench.error(*HYENA, "--plugin", name).startswith(message)
    assert not (mechbench.folder / "runs").exists()


FILTER = """import mechbench
import torch

@mechbench.register_filter("mine")
class Mine(torch.nn.Module):
    def __init__(self, n_filters, d_model, max_seqlen, rate: float = 1.0):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.full((n_filters, d_model, 1), rate))
    def forward(self, seqlen):
        return torch.exp(-self.rate * torch.arange(seqlen))
"""


def test_filter_of_a_plugin_trains_and_its_file_is_part_of_the_id(mechbench: CommandLine) -> None:
    plugin = mechbench.folder / "filter.py"
    args = (*HYENA, *TINY, "--option", "filter=mine", "--option", "rate=0.5", "--quiet")
    plugins = []
    for text in (FILTER, FILTER.replace("torch.exp(-self", "torch.exp(-2 * self")):
        plugin.write_text(text)
        done = mechbench.inside(*args, "--plugin", "filter.py")
        assert done.returncode == 0, done.stderr
        plugins.append({"filter.py": hashlib.sha256(text.encode()).hexdigest()})
    results = [json.loads(p.read_text()) for p in mechbench.folder.rglob("result.json")]
    assert len(results) == len({result["cell_id"] for result in results}) == 2
    configs = [result["config"] for result in results]
    assert sorted(map(str, plugins)) == sorted(str(config.pop("plugins")) for config in configs)
    assert configs[0] == configs[1]
    options = configs[0]["operator_options"]
    assert (options["filter"], options["rate"], options["n_taps"]) == ("mine", 0.5, 64)
    message = mechbench.error(*HYENA, *TINY, "--option", "filter=mine")
    assert message.startswith("unknown filter 'mine': ")


REFUSED = {
    "wrong type": (("--option", "order=two"), "option 'order' of operator 'hyena' is 'two': "),
    "unknown": (
        ("--option", "ordr=2"),
        "operator 'hyena' has no option 'ordr': did you mean 'order'? choose from: ",
    ),
    "a file in the way": (("--out", "file"), "cannot write to file/"),
    "no CUDA": (("--device", "cuda"), "device is 'cuda': this machine has no CUDA device; use cpu"),
}


@pytest.fixture(scope="module")
def refused(mechbench_of_module: CommandLine) -> dict[str, Done]:
    """Return what needs torch to be refused."""
    (mechbench_of_module.folder / "file").write_text("in the way")
    return {
        case: mechbench_of_module.inside(*HYENA, *TINY, *args)
        for case, (args, _) in REFUSED.items()
    }


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=NO_CUDA) if c == "no CUDA" else c for c in REFUSED]
)
def test_what_only_torch_can_tell_is_one_line_too(
    refused: dict[str, Done], case: str, mechbench_of_module: CommandLine
) -> None:
    assert error_of(refused[case]).startswith(REFUSED[case][1])
    assert (mechbench_of_module.folder / "file").read_text() == "in the way"


def test_unknown_option_is_answered_with_all_there_are(refused: dict[str, Done]) -> None:
    valid = error_of(refused["unknown"]).partition("choose from: ")[2].split(", ")
    assert {"order", "variant", "filter_lr", "emb_dim"} <= set(valid)
    assert valid == sorted(valid)
    assert not {"d_model", "max_seqlen"} & set(valid)


def test_result_is_summarised_and_stored(finished: Path) -> None:
    (folder,) = (finished / "runs").iterdir()
    assert set(contents(folder)) == {"checkpoint.pt", "config.json", "metrics.csv", "result.json"}
    result = the_result(finished)
    assert (result["status"], result["stop"], result["causal"]) == ("ok", "budget", True)
    assert [e["seqlen"] for e in result["evaluations"]] == [4, 8, 16]  # --eval-seqlen twice
    assert {e["n"] for e in result["evaluations"]} == {32}
    assert result["train_tokens"] <= 4096 < result["train_tokens"] + 64 * 10


def test_on_a_cpu_neither_compiler_nor_algebra_system_is_loaded(finished: Path) -> None:
    """They take longer to load than small cells to train."""
    loaded = set(re.findall(r"\| +([\w.]+)", (finished / "imports").read_text(encoding="utf-8")))
    assert "torch" in loaded
    assert not {"sympy", "torch._dynamo", "torch._inductor"} & loaded


def copies(finished: Path, folder: Path, names: Sequence[str]) -> list[Path]:
    """Copy the finished run once for each name; return the cells' folders."""
    for name in names:
        shutil.copytree(finished / "runs", folder / name)
    return [next((folder / name).iterdir()) for name in names]


def test_finished_run_is_read_run_afresh_or_mended(mechbench: CommandLine, finished: Path) -> None:
    names = ("read", "fresh", "result", "checkpoint")
    cells = copies(finished, mechbench.folder, names)
    old = json.loads((cells[1] / "result.json").read_text())
    old["provenance"]["date"] = "2020-01-01T00:00:00Z"  # dates are in seconds, a run may take less
    (cells[1] / "result.json").write_text(json.dumps(old))
    (cells[2] / "result.json").write_text('{"status": "o')
    (cells[3] / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    (cells[3] / "result.json").unlink()
    before = [contents(cell) for cell in cells]
    commands = [(*FINISHED, "--out", name) for name in names]
    commands[1] += ("--fresh",)
    done = [mechbench.inside(*command) for command in commands]
    assert [d.returncode for d in done] == [0] * 4, done
    after = [contents(cell) for cell in cells]

    assert after[0] == before[0]
    assert "accuracy at       4" in done[0].stdout
    assert done[0].stderr == done[1].stderr == ""

    dates = [
        json.loads(files["result.json"])["provenance"]["date"] for files in (after[0], after[1])
    ]
    assert old["provenance"]["date"] < dates[0] <= dates[1]
    assert set(after[1]) == set(before[1])

    (warning,) = lines(done[2].stderr)
    assert warning.startswith("mechbench: warning: result/")
    assert "is corrupt" in warning
    assert warning.endswith("set aside as result.json.corrupt-1")
    assert after[2]["result.json.corrupt-1"] == b'{"status": "o'

    (warning,) = lines(done[3].stderr)
    assert warning.startswith("mechbench: warning: checkpoint/")
    assert warning.endswith("set aside as checkpoint.pt.corrupt-1, training starts over")
    assert after[3]["checkpoint.pt.corrupt-1"] == before[3]["checkpoint.pt"]

    expected = the_result(finished)
    for name in names:
        assert the_result(mechbench.folder / name) == expected


def test_full_disk_is_one_line_and_loses_nothing(mechbench: CommandLine, finished: Path) -> None:
    pytest.importorskip("resource")
    (cell,) = copies(finished, mechbench.folder, ["runs"])
    (cell / "result.json").unlink()
    before = contents(cell)
    limit = 1 << 14
    assert len(before["checkpoint.pt"]) > limit > len(before["config.json"])
    message = error_of(mechbench(*FINISHED, file_limit=limit))
    assert message == f"cannot write runs/{cell.name}/checkpoint.pt: File too large"
    assert contents(cell) == before


@pytest.fixture(scope="module")
def tried(
    tmp_path_factory: pytest.TempPathFactory, finished: Path
) -> tuple[CommandLine, dict[str, Done]]:
    """Return what became of the operators in BAD, and of a report on them and one that works."""
    command = CommandLine(tmp_path_factory.mktemp("tried"))
    (command.folder / "bad.py").write_text(BAD)
    allowed = (*bad("ahead"), "--out", "allowed", "--allow-noncausal")
    done = {name: command.inside(*bad(name)) for name in BAD_OPERATORS}
    done["allowed"] = command.inside(*allowed)
    done["report"] = command.inside("report", "runs", "allowed", str(finished / "runs"))
    return command, done


@pytest.mark.parametrize("operator", BAD_OPERATORS)
def test_operator_that_breaks_its_contract_is_named_and_stored_as_an_error(
    tried: tuple[CommandLine, dict[str, Done]], operator: str
) -> None:
    command, done = tried
    message = error_of(done[operator])
    assert message.startswith(BAD_OPERATORS[operator])
    assert done[operator].stdout == ""
    found = [json.loads(p.read_text()) for p in (command.folder / "runs").rglob("result.json")]
    (stored,) = [data for data in found if data["config"]["operator"] == operator]
    assert (stored["status"], stored["reason"]) == ("error", message)
    assert stored["evaluations"] == []


def test_operator_that_looks_ahead_runs_if_allowed_and_is_marked(
    tried: tuple[CommandLine, dict[str, Done]],
) -> None:
    command, done = tried
    assert done["allowed"].returncode == 0, done["allowed"].stderr
    assert "NOT CAUSAL: it looks ahead, so it is not ranked" in done["allowed"].stdout
    result = the_result(command.folder / "allowed")
    assert (result["status"], result["causal"]) == ("ok", False)


def test_report_ranks_no_operator_that_failed_or_looks_ahead(
    tried: tuple[CommandLine, dict[str, Done]],
) -> None:
    command, done = tried
    assert done["report"].returncode == 0, done["report"].stderr
    with (command.folder / "report" / "table.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    rows = {row["operator"]: row for row in found if row["eval_seqlen"] == "8"}
    assert set(rows) == {*BAD_OPERATORS, "hyena"}
    assert {name for name, row in rows.items() if row["ranked"] == "True"} == {"hyena"}
    # No other competes, so there is nothing that a test could tell it from.
    assert not {name for name, row in rows.items() if row["best"] == "True"}
    assert {name for name, row in rows.items() if row["accuracy"]} == {"hyena", "ahead"}
    markdown = (command.folder / "report" / "table.md").read_text()
    for operator in BAD_OPERATORS:
        if operator == "ahead":
            continue  # run again with --allow-noncausal: the newest result of an experiment counts
        message = error_of(done[operator])
        assert f"- {operator} at 8, seed 0: error: {message}" in markdown
    assert "| ahead (non-causal) |" in markdown


Outcome = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Run LONG without interruption, beside the tests; return how to wait for its result."""
    folder = tmp_path_factory.mktemp("whole")
    process = CommandLine(folder).start(*LONG)

    def wait() -> dict[str, Any]:
        out, err = process.communicate(timeout=600) if process.returncode is None else ("", "")
        assert process.returncode == 0, (out, err)
        return the_result(folder)

    return wait


def await_checkpoints(process: subprocess.Popen[str], folder: Path, number: int) -> Path:
    """Wait until `process` has written that many; return the cell's folder."""
    seen: set[int] = set()
    deadline = time.monotonic() + 600
    before = {p.stat().st_mtime_ns for p in folder.rglob("checkpoint.pt")}
    while len(seen - before) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        seen.update(p.stat().st_mtime_ns for p in folder.rglob("checkpoint.pt"))
        time.sleep(0.002)
    (path,) = folder.rglob("checkpoint.pt")
    return path.parent


def step_of(cell: Path) -> int:
    return int(torch.load(cell / "checkpoint.pt", weights_only=True)["progress"]["step"])


def test_same_cell_twice_at_once_is_refused_and_ctrl_c_can_be_continued(
    mechbench: CommandLine, whole: Outcome
) -> None:
    with mechbench.start(*LONG, "--checkpoint-every", "0") as first:
        try:
            cell = await_checkpoints(first, mechbench.folder, 3)
            first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second one starts
            before = contents(cell)
            message = mechbench.error(*LONG)
            assert message.startswith(f"runs/{cell.name} is in use by process {first.pid}: ")
            assert contents(cell) == before
            first.send_signal(signal.SIGINT)
            first.send_signal(signal.SIGCONT)
            _, err = first.communicate(timeout=600)
        finally:
            first.kill()
    assert first.returncode == 130
    (line,) = lines(err)
    said = re.fullmatch(
        r"mechbench: interrupted at step (\d+); the same command continues from there", line
    )
    assert said, line
    assert 3 <= int(said[1]) == step_of(cell) < STEPS
    assert not (cell / "result.json").exists()
    assert lines(mechbench.works(*LONG).stderr) == []
    assert the_result(mechbench.folder) == whole()


def test_terminated_then_killed_run_continues_to_the_same_result(
    mechbench: CommandLine, whole: Outcome
) -> None:
    with mechbench.start(*LONG, "--checkpoint-every", "0") as process:
        cell = await_checkpoints(process, mechbench.folder, 3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "Traceback" not in err
    terminated_at = step_of(cell)
    assert f"interrupted at step {terminated_at}; the same command continues" in err

    # Few: on a busy machine most checkpoints come and go unseen between two looks.
    moment = random.randint(1, 4), random.uniform(0, 0.03)
    with mechbench.start(*LONG, "--checkpoint-every", "0") as process:
        await_checkpoints(process, mechbench.folder, moment[0])
        time.sleep(moment[1])
        process.kill()
    assert process.returncode == -signal.SIGKILL, moment
    assert terminated_at <= step_of(cell) < STEPS, moment
    assert not (cell / "result.json").exists()

    assert lines(mechbench.works(*LONG).stderr) == []
    assert the_result(mechbench.folder) == whole(), moment
    assert not [p for p in cell.iterdir() if "corrupt" in p.name]


WAITS = {
    "while a plugin loads": "here()\ntime.sleep(60)\n",
    "while torch is imported": "here()\nimport torch\n",
    "while nothing can be raised": """
class Left:
    def __del__(self):
        here()
        time.sleep(60)


Left()
time.sleep(60)
""",
    "while the operator is checked": """
import torch
import mechbench


@mechbench.register_operator("slow")
class Slow(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()

    def forward(self, u):
        here()
        time.sleep(60)
""",
}


@pytest.mark.parametrize("when", WAITS)
def test_ctrl_c_before_training_is_one_line(mechbench: CommandLine, when: str) -> None:
    here = mechbench.folder / "here"
    start = "import time\n\n\ndef here():\n    open('here', 'w').close()\n\n\n"
    (mechbench.folder / "bad.py").write_text(start + WAITS[when])
    with mechbench.start(*bad("slow")) as process:
        while not here.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out, lines(err)) == (130, "", ["mechbench: interrupted"])
    assert not list(mechbench.folder.rglob("result.json"))


def test_a_larger_budget_carries_the_run_on_and_a_smaller_one_reads_it(
    mechbench: CommandLine,
) -> None:
    first = mechbench.works(*HYENA, *TINY, "--budget", "12000")
    assert "18 steps" in first.stdout
    second = mechbench.works(*HYENA, *TINY, "--budget", "20000")
    assert "31 steps" in second.stdout
    again = mechbench.inside(*HYENA, *TINY, "--budget", "12000")
    assert (again.returncode, again.stdout) == (0, second.stdout)
    assert "was trained on 19840 tokens, beyond the budget of 12000" in again.stderr
    whole = mechbench.inside(*HYENA, *TINY, "--budget", "20000", "--out", "whole")
    assert whole.returncode == 0
    assert the_result(mechbench.folder / "runs") == the_result(mechbench.folder / "whole")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--budget", "639"), "budget_tokens is 639: less than one step"),
        (
            ("--seqlen", "2048", "--vocab-size", "20", "--budget", "200000"),
            "budget_tokens is 200000: the curriculum goes through seqlen 128, 512 first and cannot "
            "reach 2048: expected at least 1161600, or curriculum 'none'",
        ),
    ],
)
def test_a_budget_that_cannot_reach_full_length_is_one_line_before_training(
    mechbench: CommandLine, options: tuple[str, ...], text: str
) -> None:
    done = mechbench(*HYENA, *TINY, *options)
    assert done.returncode == 2
    assert text in error_of(done)
    assert not (mechbench.folder / "runs").exists()


def test_a_schedule_that_knows_the_budget_is_not_offered(mechbench: CommandLine) -> None:
    done = mechbench(*HYENA, *TINY, "--schedule", "cosine")
    assert done.returncode == 2
    assert "'cosine' is not one of 'constant', 'averaged', 'wsd', 'schedule-free'" in done.stderr
