"""Classes of another package as components named `prefix:Class`; listing them imports none.

A package needs one adapter for all its classes, and no line per class: whatever it exports is
available. No torch.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One package and how to reach its classes."""

    prefix: str  # prefix of the names that users write
    module: str  # top-level module to import
    exports: str  # file in it whose public names are the classes
    adapter: str  # module whose attributes are the components, by class name
    distribution: str  # name under which it is installed
    extra: str  # extra of mechbench that installs it
    source: str  # paper or address

    def names(self) -> list[str]:
        """Return the classes' names, read without importing; none if the package is absent."""
        try:
            spec = importlib.util.find_spec(self.module)
        except ValueError:  # a half-imported package
            return []
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            file = Path(folder) / self.exports
            if file.is_file():
                return public_names(file.read_text(encoding="utf-8"))
        return []

    def needs(self, name: str) -> str | None:
        """Say what is missing if `name` belongs to this package and the package is absent."""
        if not name.startswith(f"{self.prefix}:") or self.names():
            return None
        return (
            f"{name!r} needs the package {self.distribution}: pip install 'mechbench[{self.extra}]'"
        )


def public_names(text: str) -> list[str]:
    """Return what a module exports: its `__all__`, or else the classes that it imports."""
    imported = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            try:
                return sorted(ast.literal_eval(node.value))
            except ValueError:  # `__all__` is computed: take the imports
                continue
        if isinstance(node, ast.ImportFrom):
            imported += [alias.asname or alias.name for alias in node.names]
    return sorted(name for name in imported if name[:1].isupper())


FLA = Package(
    prefix="fla",
    module="fla",
    exports="layers/__init__.py",
    adapter="mechbench.operators.fla_layers",
    distribution="flash-linear-attention",
    extra="fla",
    source="https://github.com/fla-org/flash-linear-attention",
)
