"""The catalogue of operators and tasks: built-ins, packages, families, plugin files.

Built-ins are found by reading (not importing) the files of `mechbench/operators` and
`mechbench/tasks` for their `@register_...("name", source=...)` line. So a new file is the whole
registration, `mechbench list` imports no torch, and no second list has to be kept in step.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mechbench.errors import ConfigError, PluginError, nearest
from mechbench.families import FLA, Family

T = TypeVar("T", bound=Callable[..., Any])
PLUGIN_VARIABLE = "MECHBENCH_PLUGINS"


@dataclass
class Entry:
    """One registered component."""

    name: str
    kind: str  # "operator" or "task"
    origin: str  # "built-in", "package NAME" or the path of a plugin file
    summary: str = ""
    source: str = ""
    target: str = ""  # "module:attribute" of what is not loaded yet
    obj: Any = None
    digest: str = ""  # SHA-256 of the plugin file, empty for the rest


@dataclass
class Registry:
    """Names to components of one kind; loads what is asked for and nothing else."""

    kind: str
    package: str  # where the built-ins live
    group: str  # entry-point group
    entries: dict[str, Entry] = field(default_factory=dict)
    families: tuple[Family, ...] = ()  # other packages' classes, listed where installed
    _discovered: bool = False

    def register(self, name: str, *, source: str = "") -> Callable[[T], T]:
        """Return the decorator that registers a class or factory as `name`.

        Args:
            name: what users write after `--operator` or `--task`.
            source: the paper and section it comes from.

        Raises:
            PluginError: the name is taken by something else; both origins are named.
        """

        def decorate(obj: T) -> T:
            module = str(getattr(obj, "__module__", ""))
            summary = (getattr(obj, "__doc__", None) or "").strip().split("\n")[0]
            target = f"{module}:{getattr(obj, '__qualname__', '')}"
            # What a plugin file registers is the plugin's, wherever the class was written.
            origin, digest = _PLUGINS[_LOADING[-1]] if _LOADING else _origin(module)
            new = Entry(name, self.kind, origin, summary, source, target, obj, digest)
            self._add(new)
            return obj

        return decorate

    def _add(self, new: Entry) -> None:
        self._discover()
        old = self.entries.get(new.name)
        if old is not None and not _same(old, new):
            raise PluginError(
                f"{self.kind} {new.name!r} is registered twice: by {old.origin} ({old.target}) "
                f"and by {new.origin} ({new.target}); rename one"
            )
        self.entries[new.name] = new

    def names(self) -> list[str]:
        """Return every known name, sorted; imports no component."""
        self._discover()
        return sorted(self.entries)

    def entry(self, name: str) -> Entry:
        """Return the entry of `name` without loading it.

        Raises:
            ConfigError: no such name; the nearest names are given, or the package that it needs.
        """
        self._discover()
        if name not in self.entries:
            for needed in filter(None, (family.needs(name) for family in self.families)):
                raise ConfigError(f"{self.kind} {needed}")
            raise ConfigError(f"unknown {self.kind} {name!r}: {nearest(name, self.entries)}")
        return self.entries[name]

    def load(self, name: str) -> Any:
        """Return the class or factory registered as `name`, importing it if need be.

        Raises:
            ConfigError: no such name.
            PluginError: its module does not import, or lacks the attribute.
        """
        entry = self.entry(name)
        if entry.obj is None:
            module, _, attribute = entry.target.partition(":")
            try:
                obj = getattr(importlib.import_module(module), attribute)
            except Exception as error:
                if entry.origin == "built-in":
                    raise  # a fault of ours deserves its traceback
                raise PluginError(
                    f"{self.kind} {name!r} of {entry.origin} cannot be loaded: "
                    f"{type(error).__name__}: {_one_line(error)}"
                ) from error
            # Importing may have run the decorator, which stored a complete entry.
            entry = self.entries[name]
            if entry.obj is None:
                entry.obj = obj
        return entry.obj

    def _discover(self) -> None:
        if self._discovered:
            return
        for found in _scan_built_ins(self.kind, self.package):
            self.entries[found.name] = found
        for point in importlib.metadata.entry_points(group=self.group):
            package = point.dist.name if point.dist else point.value
            old = self.entries.get(point.name)
            if old is not None and old.target != point.value:
                raise PluginError(
                    f"{self.kind} {point.name!r} is registered twice: by {old.origin} "
                    f"and by package {package}; uninstall or rename one"
                )
            self.entries[point.name] = Entry(
                point.name, self.kind, f"package {package}", target=point.value
            )
        for family in self.families:
            for name in family.names():
                full, origin = f"{family.prefix}:{name}", f"package {family.distribution}"
                target, summary = f"{family.adapter}:{name}", f"The layer {name}."
                found = Entry(full, self.kind, origin, summary, family.source, target)
                self.entries[full] = found
        self._discovered = True


OPERATORS = Registry("operator", "operators", "mechbench.operators", families=(FLA,))
TASKS = Registry("task", "tasks", "mechbench.tasks")
register_operator = OPERATORS.register
register_task = TASKS.register


def _scan_built_ins(kind: str, package: str) -> list[Entry]:
    """Read the registrations in the files of `mechbench/<package>` without importing them."""
    found = []
    for path in sorted((Path(__file__).parent / package).glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == f"register_{kind}":
                    name = ast.literal_eval(call.args[0])
                    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
                    summary = (ast.get_docstring(node) or "").split("\n")[0]
                    target = f"mechbench.{package}.{path.stem}:{node.name}"
                    source = given.get("source", "")
                    found.append(Entry(name, kind, "built-in", summary, source, target))
    return found


# module name -> (path, digest) of the plugin files executed so far
_PLUGINS: dict[str, tuple[str, str]] = {}
_LOADING: list[str] = []  # module names of the plugin files being executed, the innermost last


def _same(old: Entry, new: Entry) -> bool:
    """Return whether `new` is `old` again: the same object, or the load of what was only named."""
    if old.obj is not None:
        return old.obj is new.obj
    return old.target == new.target


def _origin(module: str) -> tuple[str, str]:
    if module in _PLUGINS:
        return _PLUGINS[module]
    return ("built-in" if module.startswith("mechbench.") else f"module {module}"), ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Execute a plugin file, which registers operators or tasks; a second load is a no-op.

    Raises:
        PluginError: the file is unreadable, raises, or registers nothing.
    """
    file = Path(path).expanduser().resolve()
    try:
        code = file.read_bytes()
    except OSError as error:
        raise PluginError(f"plugin {path} cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(code).hexdigest()
    module_name = f"mechbench_plugin_{file.stem}_{digest[:12]}"
    if module_name in sys.modules:
        return
    if file.suffix != ".py":
        raise PluginError(f"plugin {path} is not a Python file: expected a name ending in .py")
    before = {kind.kind: dict(kind.entries) for kind in (OPERATORS, TASKS) if kind.names()}
    module = types.ModuleType(module_name)
    module.__file__ = str(file)
    sys.modules[module_name] = module  # dataclasses and pickling look the module up by name
    _PLUGINS[module_name] = (os.fspath(path), digest)  # as given: results name no home folder
    _LOADING.append(module_name)
    try:
        # Exactly the bytes that were hashed: no cached bytecode.
        exec(compile(code, str(file), "exec"), module.__dict__)
    except BaseException as error:
        _forget(module_name, before)
        if isinstance(error, PluginError) or not isinstance(error, Exception):
            raise
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = f" at line {line}" if line else ""
        raise PluginError(
            f"plugin {path} raised {type(error).__name__}{where}: {_one_line(error)}"
        ) from error
    finally:
        _LOADING.remove(module_name)
    if before == {"operator": OPERATORS.entries, "task": TASKS.entries}:
        _forget(module_name, before)
        raise PluginError(
            f"plugin {path} registers nothing: decorate a class with "
            "@mechbench.register_operator('name') or @mechbench.register_task('name')"
        )


def _forget(module_name: str, before: dict[str, dict[str, Entry]]) -> None:
    """Undo what a plugin file that failed half-way left behind."""
    del sys.modules[module_name], _PLUGINS[module_name]
    for registry in (OPERATORS, TASKS):
        registry.entries.clear()
        registry.entries.update(before[registry.kind])


def load_plugins(paths: tuple[str, ...] = ()) -> None:
    """Load the plugin files given and those in MECHBENCH_PLUGINS (separated as in PATH)."""
    listed = os.environ.get(PLUGIN_VARIABLE, "")
    for path in [*filter(None, listed.split(os.pathsep)), *paths]:
        load_plugin(path)
