"""A result at one length, as tables and figures take it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from mechbench.record.config import Config, canonical_json
from mechbench.record.results import NOT_RUN, STATUSES

NAN = "nan"  # outputs at a length that are not finite, of a result that is "ok" otherwise
OUTCOMES = (*STATUSES, NAN, NOT_RUN)


@dataclass(frozen=True)
class Row:
    """A result at one length; `evaluation` is None where it failed before being scored there."""

    config: Config
    data: dict[str, Any]
    eval_seqlen: int
    evaluation: dict[str, Any] | None

    @property
    def status(self) -> str:
        """Status of the whole result."""
        return str(self.data["status"])

    @property
    def outcome(self) -> str:
        """Status at this length: that of the result, or NAN."""
        return NAN if self.status == "ok" and self.non_finite else self.status

    @property
    def non_finite(self) -> int:
        """Scored positions there whose outputs were not finite."""
        return int((self.evaluation or {}).get("non_finite") or 0)

    @property
    def accuracy(self) -> float | None:
        """Accuracy there; None if not scored, of a diverged run or with outputs not finite."""
        if self.evaluation is None or self.status == "diverged" or self.non_finite:
            return None
        return float(self.evaluation["accuracy"])


def identity(config: Config, without: Sequence[str] = ()) -> str:
    """Return what decides training, seed left out: equal for the seeds of one experiment.

    Whether looking ahead was allowed decides what is refused, not what is trained. Further settings
    can be left out, such as the learning rate.
    """
    absent = {"seed", "eval_seqlens", "allow_noncausal", *without}
    data = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in absent}
    if "plugins" in data:  # a file is what it holds, wherever it lies
        data["plugins"] = sorted(config.plugins.values())
    return canonical_json(data)


def age(data: dict[str, Any]) -> str:
    """Return what results are sorted by: their date, whether they ended well, their content."""
    ended_well = data["status"] == "ok"  # a refused run and the same allowed one take a second
    return f"{data['provenance'].get('date')} {ended_well} {canonical_json(data)}"


def rows_of(data: dict[str, Any]) -> list[Row]:
    """Return the rows of a result that the schema found sound, one a length.

    Raises:
        ConfigError: its configuration does not fit this version.
    """
    config = Config.from_dict(data["config"])
    scored = {e["seqlen"]: e for e in data["evaluations"]}
    lengths = sorted({config.seqlen, *config.eval_seqlens, *scored})
    return [Row(config, data, length, scored.get(length)) for length in lengths]
