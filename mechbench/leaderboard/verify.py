"""A random sample of a leaderboard's cells, trained again and compared. Torch comes late."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechbench.catalogue.plugins import load_plugins
from mechbench.errors import ConfigError, MechbenchError, ResultError
from mechbench.record.config import Config
from mechbench.record.results import wilson_interval
from mechbench.report.results_csv import FILE, read_rows

SAME, AGREES, DIFFERS, UNCHECKED = OUTCOMES = ("same", "agrees", "differs", "not checked")
_COMPARED = ("ok", "diverged")  # statuses that come of training, not of the machine
# Equal in both runs, a CPU must give the same counts.
_MACHINE = ("mechbench", "torch", "python", "platform", "device")


@dataclass(frozen=True)
class Comparison:
    """A cell as stored and as trained again; `text` says what was found."""

    cell_id: str
    name: str
    outcome: str
    text: str
    stored: dict[int, float]  # accuracy by length
    again: dict[int, float]

    @property
    def line(self) -> str:
        """The comparison on one line."""
        accuracies = ", ".join(
            f"{100 * accuracy:.2f} % vs. "
            + (f"{100 * self.again[n]:.2f} %" if n in self.again else "none")
            + f" at {n}"
            for n, accuracy in self.stored.items()
        )
        return f"{self.cell_id} {self.name}: {accuracies}: {self.outcome}: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)


def verify(
    folder: Path, *, sample: int, seed: int = 0, device: str = "auto",
    plugins: Sequence[str] = (), out: Path = Path("runs-verify"),
) -> Iterator[Comparison]:  # fmt: skip
    """Yield a comparison for each of `sample` cells of the leaderboard in `folder`.

    Args:
        folder: leaderboards/NAME.
        sample: cells to train again; all, if there are fewer.
        seed: of the choice.
        device: where to train: "auto", "cpu", "cuda" or "cuda:N".
        plugins: files with the operators that are not built in.
        out: where the runs go; what is finished there is not trained again.

    Raises:
        ConfigError: the device is not there.
        ResultError: no results there, or damaged ones.
        PluginError: a plugin cannot be loaded.
        Interrupted: SIGINT or SIGTERM; the same call continues.
    """
    rows = {row.data["cell_id"]: row.data for row in read_rows(folder / FILE)}
    cells = [rows[cell_id] for cell_id in sorted(rows) if rows[cell_id]["status"] in _COMPARED]
    if not cells:
        raise ResultError(f"{folder / FILE} holds no trained cell")
    load_plugins(tuple(plugins))
    from mechbench.plan.resolve import device_of

    where = device_of(device)
    for data in random.Random(seed).sample(cells, min(sample, len(cells))):
        yield _again(data, where, out)


def _again(data: dict[str, Any], device: str, out: Path) -> Comparison:
    from mechbench.training.cell import run_config

    stored = Config.from_dict(data["config"])
    config = dataclasses.replace(stored, device_type=device.partition(":")[0])
    unknown = _other_code(stored, device)
    if unknown:
        return _comparison(data, {}, UNCHECKED, unknown)
    try:
        again = run_config(config, out, device).data
    except (ConfigError, ResultError) as error:
        return _comparison(data, {}, UNCHECKED, str(error))
    except MechbenchError as error:
        return _comparison(data, {}, DIFFERS, str(error))
    if again["seconds"] == data["seconds"]:
        text = f"{out} holds the stored result itself: choose another folder with --out"
        return _comparison(data, {}, UNCHECKED, text)
    return _comparison(data, again, *compare(data, again))


def _other_code(config: Config, device: str) -> str:
    """Say why a cell cannot be trained here with the code that it names; empty if it can."""
    from mechbench.operators.base import from_stored
    from mechbench.plan.resolve import resolve

    try:
        here, _ = resolve(
            config.operator, config.task,
            operator_options=from_stored(config.operator, config.operator_options),
            task_options=config.task_options, seqlen=config.seqlen, vocab_size=config.vocab_size,
            eval_seqlens=config.eval_seqlens, device=device, dtype=config.dtype,
        )  # fmt: skip
    except MechbenchError as error:
        return f"{error}; name the file of a plugin with --plugin"
    if sorted(set(here.plugins.values())) != sorted(set(config.plugins.values())):
        return "its plugin is another here: name the file that was used with --plugin"
    if config.sources and here.sources != config.sources:  # older results name none
        other = {*here.sources.items()} ^ {*config.sources.items()}
        return f"its code is another here: {', '.join(sorted({name for name, _ in other}))}"
    for name in ("task_version", "max_seqlen", "protocol"):
        if getattr(here, name) != getattr(config, name):
            return f"{name} is {getattr(config, name)}: {getattr(here, name)} in this version"
    return ""


def compare(stored: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[str, str]:
    """Return the outcome of comparing two results of one cell, and what was found."""
    kinds = [data["config"]["device_type"] for data in (stored, again)]
    place = f"on {kinds[1]}" if kinds[0] == kinds[1] else f"on {kinds[1]}, stored on {kinds[0]}"
    pairs = _pairs(stored, again)
    facts = ("status", "solved", "steps", "train_tokens", "validation_accuracy")
    unequal = [name for name in facts if stored[name] != again[name]]
    unequal += [
        f"{name} at {n}"
        for n, (old, new) in pairs.items()
        for name in ("correct", "n", "dense_n", "dense_accuracy")
        if old[name] != new.get(name)
    ]
    if not unequal:
        return SAME, f"every count, {place}"
    origin = [data["provenance"] for data in (stored, again)]
    exact = kinds == ["cpu", "cpu"] and all(origin[0][k] == origin[1][k] for k in _MACHINE)
    if exact:
        return DIFFERS, f"{', '.join(unequal[:3])}, {place} with the same versions and threads"
    apart: list[str] = [name for name in ("status", "solved") if name in unequal]
    apart += [f"accuracy at {n}" for n, (old, new) in pairs.items() if not _agree(old, new)]
    if apart:
        return DIFFERS, f"{', '.join(apart)}, {place}"
    return AGREES, f"within the 95% interval of the difference, {place}"


def _pairs(
    stored: Mapping[str, Any], again: Mapping[str, Any]
) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    new = {e["seqlen"]: e for e in again["evaluations"]}
    return {e["seqlen"]: (e, new.get(e["seqlen"], {})) for e in stored["evaluations"]}


def _agree(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether the 95 percent interval of the difference of two accuracies holds 0.

    Source: Newcombe 1998, "Interval estimation for the difference between independent
    proportions", method 10.
    """
    if not new:
        return False
    more, less = sorted((old, new), key=lambda e: e["correct"] / e["n"], reverse=True)
    p, q = more["correct"] / more["n"], less["correct"] / less["n"]
    low = p - wilson_interval(more["correct"], more["n"])[0]
    high = wilson_interval(less["correct"], less["n"])[1] - q
    return bool(p - q <= math.hypot(low, high))


def _comparison(
    data: Mapping[str, Any], again: Mapping[str, Any], outcome: str, text: str
) -> Comparison:
    config = data["config"]
    scores = [
        {e["seqlen"]: e["accuracy"] for e in result.get("evaluations", ())}
        for result in (data, again)
    ]
    name = f"{config['operator']} on {config['task']} at {config['seqlen']}, seed {config['seed']}"
    return Comparison(data["cell_id"], name, outcome, " ".join(text.split()), *scores)
