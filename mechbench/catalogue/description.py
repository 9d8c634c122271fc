"""What `mechbench show` prints of an operator or a filter: equation, options, source. No torch.

All of it stands in the component's own file: the module's docstring (of built-ins), the signature,
and the `Args` of the class, so that a plugin is described as well as it describes itself.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mechbench.catalogue.options import signature_options, type_text
from mechbench.catalogue.registry import Entry
from mechbench.catalogue.settings import shown
from mechbench.catalogue.terminal import wrapped

_MEANING = 4  # columns before what an option means


def description(
    entry: Entry, component: Any, reserved: Collection[str], more: Mapping[str, Any] | None = None
) -> str:
    """Return the text.

    Args:
        entry: of the component in its catalogue.
        component: the class or factory.
        reserved: arguments that the harness passes itself.
        more: options beyond the signature's that it takes by default.
    """
    where = "" if entry.origin == "built-in" else f", from {entry.origin}"
    lines = [*wrapped(f"{entry.name} ({entry.kind}{where}): {entry.summary}", "  ")]
    if entry.source:
        lines += wrapped(f"Source: {entry.source}", "  ")
    lines += _equation(component) if entry.origin == "built-in" else []
    own = signature_options(component, reserved)
    meanings = arguments(inspect.getdoc(component) or "")
    flag = "--option" if entry.kind == "operator" else f"--option filter={entry.name} --option"
    lines += ["", f"Options, {flag} NAME=VALUE:" if own else "No options."]
    for name, parameter in own.items():
        lines += _option(name, parameter, meanings.get(name, ""))
    if beyond := sorted(set(more or {}) - set(own)):
        lines += ["", *wrapped(f"And of the parts it has by default: {', '.join(beyond)}", "  ")]
    for fidelity in getattr(component, "fidelity", ()):
        error = "" if fidelity.error is None else f", largest relative error {fidelity.error:g}"
        variant = f" ({fidelity.variant})" if fidelity.variant else ""
        lines += ["", *wrapped(f"Compared with{variant}: {fidelity.compared_with}{error}", "  ")]
        lines += wrapped(f"Deviations: {fidelity.deviations}", "  ")
    return "\n".join(lines)


def arguments(doc: str) -> dict[str, str]:
    """Return what the section `Args` of a docstring says of each argument, on one line each."""
    found: dict[str, list[str]] = {}
    section = re.search(r"^Args:\n(.*?)(?:\n(?=\S)|\Z)", doc, re.M | re.S)
    name = ""
    for line in textwrap.dedent(section[1]).splitlines() if section else ():
        head = re.fullmatch(r"\*{0,2}(\w+)(?: \([^)]*\))?: ?(.*)", line)
        if head:
            name, line = head[1], head[2]
        if name:
            found.setdefault(name, []).append(line.strip())
    return {name: " ".join(filter(None, lines)) for name, lines in found.items()}


def _equation(component: Any) -> Iterator[str]:
    """Yield the docstring of the component's module but its first line, equations as they stand."""
    module = sys.modules.get(getattr(component, "__module__", ""))
    text = inspect.cleandoc(getattr(module, "__doc__", None) or "")
    for paragraph in text.split("\n\n")[1:]:
        if paragraph.startswith("Source: "):
            continue
        yield ""
        if paragraph.startswith("    "):
            for line in paragraph.splitlines():
                yield from wrapped(line, "        ")
        else:
            yield from wrapped(" ".join(paragraph.split()), "")


def _option(name: str, parameter: inspect.Parameter, meaning: str) -> Iterator[str]:
    if name == "**":
        yield "  any other"
        return
    kind = type_text(parameter.annotation)
    given = parameter.default is not inspect.Parameter.empty
    default = f"default {_plain(parameter.default)}" if given else "required"
    yield from wrapped(f"  {name}: {', '.join(filter(None, (kind, default)))}", " " * _MEANING)
    if meaning:
        yield from wrapped(" " * _MEANING + meaning, " " * _MEANING)


def _plain(value: Any) -> str:
    """Return a value as it is written after --option NAME=."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) and value else shown(value)
