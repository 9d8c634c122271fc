"""What `mechbench check` prints and stores of an operator: soundness, properties, growth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechbench.catalogue.bounds import CHECK
from mechbench.catalogue.settings import check_product, setting
from mechbench.checks.growth import growth
from mechbench.checks.properties import properties
from mechbench.checks.sound import soundness
from mechbench.checks.subject import Finding, Subject
from mechbench.errors import ConfigError
from mechbench.operators.base import operator_options
from mechbench.record.files import make_folder
from mechbench.record.provenance import provenance
from mechbench.record.results import write_json
from mechbench.training.devices import on

_TITLES = {
    "soundness": "is it sound?",
    "properties": "which properties of attention has it, as initialised? (Poli et al. 2023)",
    "growth": "how do its memory and time grow?",
}


@dataclass(frozen=True)
class Examination:
    """What was found about one operator."""

    subject: Subject
    given: dict[str, Any]  # options that were set
    sections: dict[str, list[Finding]]

    @property
    def findings(self) -> list[Finding]:
        """The findings of all sections, in the order in which they are printed."""
        return [finding for findings in self.sections.values() for finding in findings]

    @property
    def sound(self) -> bool:
        """No finding is a FAIL."""
        return all(finding.verdict != "FAIL" for finding in self.findings)

    def text(self) -> str:
        """Return the findings as aligned text."""
        s = self.subject
        options = "".join(f", {k}={v}" for k, v in self.given.items())
        out = [f"{s.operator}{options}: d_model {s.d_model}, seqlen {s.seqlen}, {s.device}"]
        width = max(len(finding.name) for finding in self.findings)
        for key, findings in self.sections.items():
            out += ["", _TITLES[key]]
            out += [f"  {x.verdict:4s}  {x.name:{width}s}  {x.text}".rstrip() for x in findings]
        failed = [x.name for x in self.findings if x.verdict == "FAIL"]
        out += ["", f"FAIL: {', '.join(failed)}" if failed else "PASS: a sound operator"]
        return "\n".join(out)

    def to_dict(self) -> dict[str, Any]:
        """Return what check.json holds."""
        s = self.subject
        return {
            "schema_version": 1,
            "operator": s.operator,
            "options": s.options,
            "d_model": s.d_model,
            "seqlen": s.seqlen,
            "seed": s.seed,
            "sound": self.sound,
            **{key: [asdict(x) for x in findings] for key, findings in self.sections.items()},
            "provenance": provenance(s.device),
        }


def check_operator(
    operator: str,
    options: dict[str, Any],
    *,
    d_model: int = 64,
    seqlen: int = 512,
    device: str = "cpu",
    seed: int = 0,
) -> Examination:
    """Examine an operator.

    Args:
        operator: registered name.
        options: its keyword arguments, strings or values.
        d_model: D.
        seqlen: L of the properties; growth is looked at from L to 8 L.
        device: "cpu", "cuda" or "cuda:N".
        seed: of initialisation and inputs.

    Raises:
        ConfigError: unknown operator or option.
        OperatorError: it cannot be built.
    """
    d_model, seqlen = setting("d_model", d_model), setting("seqlen", seqlen)
    if seqlen < 2:
        raise ConfigError(f"seqlen is {seqlen}: expected at least 2")
    seed = setting("seed", seed)
    check_product(CHECK, seqlen=seqlen, d_model=d_model)
    resolved = operator_options(operator, options)
    subject = Subject(operator, resolved, d_model, seqlen, device, seed)
    with on(device):
        sections = {"soundness": soundness(subject)}
        if sections["soundness"][0].verdict != "FAIL":
            sections |= {"properties": properties(subject), "growth": growth(subject)}
    return Examination(subject, options, sections)


def store(examination: Examination, folder: Path) -> Path:
    """Write FOLDER/check.json and return its path.

    Raises:
        ConfigError: the folder cannot be written.
        ResultError: the file cannot be written.
    """
    make_folder(folder)
    path = folder / "check.json"
    write_json(path, examination.to_dict())
    return path
