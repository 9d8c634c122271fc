"""Several processes give what one gives; NCCL where there are two GPUs, gloo everywhere."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

import mechbench as package
from cli.conftest import FINISHED, TINY, CommandLine
from mechbench.errors import ConfigError

RUN = ("run", "--operator", "hyena", "--task", "recall", *TINY)
TWO = ("--data-parallel", "2")


def losses(folder: Path) -> list[float]:
    (path,) = folder.glob("*/metrics.csv")
    with path.open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def stored(folder: Path) -> dict[str, object]:
    (path,) = folder.glob("*/result.json")
    result: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return result


def same(folder: Path, one: str, two: str, tolerance: float) -> None:
    a, b = stored(folder / one), stored(folder / two)
    for key in ("cell_id", "status", "steps", "train_tokens", "excluded_examples"):
        assert a[key] == b[key], key
    assert losses(folder / two) == pytest.approx(losses(folder / one), rel=tolerance)


def listening(pid: int) -> set[str]:
    """Return the addresses at which a process and its children accept connections."""
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
        found |= listening(int(child))
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(os.readlink(path))
    for table in (f"/proc/{pid}/net/tcp", f"/proc/{pid}/net/tcp6"):
        for line in Path(table).read_text(encoding="utf-8").splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                address = bytes.fromhex(local.split(":")[0])
                found.add(socket.inet_ntoa(address[::-1]) if len(address) == 4 else address.hex())
    return found


def test_two_processes_give_what_one_gives(mechbench: CommandLine, finished: Path) -> None:
    command = (*FINISHED, *TWO, "--out", "two")
    first = mechbench.works(*command)
    assert first.stdout.count("hyena on recall") == 1
    (mechbench.folder / "one").symlink_to(finished / "runs")
    same(mechbench.folder, "one", "two", 1e-3)
    (path,) = mechbench.folder.glob("two/*/result.json")
    before = path.stat().st_mtime_ns
    assert mechbench.works(*command).stdout == first.stdout
    assert path.stat().st_mtime_ns == before


def test_interrupted_run_of_two_continues_and_is_carried_on(mechbench: CommandLine) -> None:
    longer = (*RUN, *TWO, "--budget", "12000", "--checkpoint-every", "0")
    with mechbench.start(*longer) as process:
        deadline = time.monotonic() + 300
        while not list(mechbench.folder.glob("runs/*/checkpoint.pt")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert listening(process.pid) == {"127.0.0.1"}
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "the same command continues" in error
    for budget in ("12000", "24000"):  # from the checkpoint, then from the result
        mechbench.works(*RUN, *TWO, "--budget", budget)
        assert stored(mechbench.folder / "runs")["train_tokens"] == int(budget) // 640 * 640
    whole, one = ((*RUN, "--budget", "24000", "--out", out) for out in ("whole", "one"))
    mechbench.works(*whole, *TWO)
    assert mechbench.inside(*one).returncode == 0
    same(mechbench.folder, "whole", "runs", 0)
    same(mechbench.folder, "one", "runs", 1e-2)
    assert len(losses(mechbench.folder / "runs")) == 1


def test_more_processes_than_sequences_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_parallel is 3: expected at most 2, the sequences"):
        package.run("hyena", "recall", batch_size=2, data_parallel=3, device="cpu", out=tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_give_what_one_gives(mechbench: CommandLine) -> None:
    cuda = [*RUN, "--device", "cuda", "--dtype", "float32"]
    mechbench.works(*cuda, "--out", "one")
    mechbench.works(*cuda, *TWO, "--out", "two")
    same(mechbench.folder, "one", "two", 1e-2)
