"""The catalogues of operators, tasks and filter families: built-ins, packages, plugin files.

Built-ins are found by reading (not importing) the files of `mechbench/operators`, `mechbench/tasks`
and `mechbench/filters` for their `@register_...("name", source=...)` line. So adding a file is all
it takes to register it, `mechbench list` imports no torch, and no second list must be maintained.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mechbench.catalogue.fingerprint import fingerprint
from mechbench.catalogue.packages import FLA, Package
from mechbench.catalogue.settings import shown
from mechbench.catalogue.sources import file_of, reached
from mechbench.errors import ConfigError, PluginError, nearest

T = TypeVar("T", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[0-9]+")  # of a name such as MyRNNCell
# What built-in tasks measure; those of plugins may say something else.
MEASURES = (
    "recall", "copying", "state tracking", "arithmetic", "in-context learning", "language",
)  # fmt: skip
PREFIX = "mechbench_plugin_"  # prefix of the module names of plugin files


@dataclass
class Entry:
    """One registered component."""

    name: str
    kind: str  # "operator", "task" or "filter"
    origin: str  # "built-in", "package NAME" or the path of a plugin file
    summary: str = ""
    source: str = ""
    target: str = ""  # "module:attribute", to load it from
    obj: Any = None
    digest: str = ""  # SHA-256 of the plugin file, empty for the rest
    home: str = ""  # module that registered it, or the module of its package
    measures: str = ""  # what a task tells of an operator, in a word or two


@dataclass
class Registry:
    """Maps names to components of one kind; loads only what is asked for."""

    kind: str
    folder: str  # folder of mechbench that holds the built-ins
    group: str  # entry-point group
    entries: dict[str, Entry] = field(default_factory=dict)
    packages: tuple[Package, ...] = ()  # packages whose classes are listed if installed
    _discovered: bool = False

    def register(self, name: str, *, source: str = "", measures: str = "") -> Callable[[T], T]:
        """Return the decorator that registers a class or factory as `name`.

        Args:
            name: what users write after `--operator`, `--task` or `--option filter=`.
            source: the paper and section it comes from.
            measures: what a task tells of an operator, such as "recall": tasks are listed by it.

        If a notebook or script registers the same thing again, edited or not, the new one counts.

        Raises:
            PluginError: not a valid name, or one taken by something else; both origins are named.
        """
        _check_name(self.kind, name)

        def decorate(obj: T) -> T:
            module = str(getattr(obj, "__module__", ""))
            summary = (getattr(obj, "__doc__", None) or "").strip().split("\n")[0]
            target = f"{module}:{getattr(obj, '__qualname__', '')}"
            # What a plugin file registers is the plugin's, wherever the class was written.
            home = LOADING[-1] if LOADING else module
            origin, digest = PLUGIN_FILES.get(home, (f"module {module}", ""))
            if module.startswith("mechbench.") and home == module and name in self.names():
                origin = "built-in"
            new = Entry(
                name, self.kind, origin, summary, source, target, obj, digest, home, measures
            )
            self._add(new)
            if origin.startswith("module "):
                self.sources(name)  # read now: a file may be edited before the run
            return obj

        return decorate

    def named(self, component: Any) -> Any:
        """Return the name that a class or factory is registered as; what is neither, as it is.

        One that is not registered is registered now, as its own name in small letters: RunningMax
        as running-max.

        Raises:
            PluginError: that name is taken by something else, or is not possible.
        """
        if not callable(component):
            return component
        module = getattr(component, "__module__", "")
        target = f"{module}:{getattr(component, '__qualname__', '')}"
        self._discover()
        for entry in self.entries.values():
            if entry.obj is component or (entry.obj is None and entry.target == target):
                return entry.name
        own = str(getattr(component, "__name__", repr(component)))
        name = "-".join(_WORD.findall(own)).lower() if own.isidentifier() else own
        self.register(name)(component)
        return name

    def _add(self, new: Entry) -> None:
        self._discover()
        old = self.entries.get(new.name)
        if old is not None and not _same(old, new) and not _again(old, new):
            raise PluginError(
                f"{self.kind} {new.name!r} is registered twice: by {old.origin} ({old.target}) "
                f"and by {new.origin} ({new.target}); rename one"
            )
        self.entries[new.name] = new

    def names(self) -> list[str]:
        """Return every known name, sorted; imports no component."""
        self._discover()
        return sorted(self.entries)

    def built_in(self) -> list[str]:
        """Return the names of what comes with the package, sorted."""
        return [name for name in self.names() if self.entry(name).origin == "built-in"]

    def entry(self, name: str) -> Entry:
        """Return the entry of `name` without loading it.

        Raises:
            ConfigError: no such name; the message gives the nearest ones, or the package needed.
        """
        self._discover()
        if not isinstance(name, str):
            raise ConfigError(f"{self.kind} is {shown(name)}: expected a name")
        if name not in self.entries:
            for needed in filter(None, (package.needs(name) for package in self.packages)):
                raise ConfigError(f"{self.kind} {needed}")
            raise ConfigError(f"unknown {self.kind} {name!r}: {nearest(name, self.entries)}")
        return self.entries[name]

    def load(self, name: str) -> Any:
        """Return the class or factory registered as `name`, importing it if necessary.

        Raises:
            ConfigError: no such name.
            PluginError: its module does not import, or lacks the attribute.
        """
        entry = self.entry(name)
        if entry.obj is None:
            module, _, attribute = entry.target.partition(":")
            try:
                obj = getattr(importlib.import_module(module), attribute)
            except (Exception, SystemExit) as error:
                if entry.origin == "built-in":
                    raise  # a bug of mechbench itself keeps its traceback
                raise PluginError(
                    f"{self.kind} {name!r} of {entry.origin} cannot be loaded: "
                    f"{type(error).__name__}: {_one_line(error)}"
                ) from error
            # Importing may have run the decorator, which stored a complete entry.
            entry = self.entries[name]
            if entry.obj is None:
                entry.obj = obj
        return entry.obj

    def sources(self, name: str) -> dict[str, str]:
        """Return the code beyond mechbench and the plugin file that decides what `name` does.

        Raises:
            ConfigError: no such name.
            PluginError: it cannot be loaded.
        """
        obj = self.load(name)
        entry = self.entries[name]
        if entry.origin == "built-in":
            return {}
        module, name = str(getattr(obj, "__module__", "")), getattr(obj, "__qualname__", name)
        roots = {entry.home, module, *(c.__module__ for c in getattr(obj, "__mro__", ()))}
        out: dict[str, str] = {}
        read = fingerprint(obj)
        if entry.origin.startswith("module ") or (entry.digest and not read.told):
            out[name if entry.digest else f"{module}:{name}"] = read.digest
            roots = {entry.home} - {module} | read.modules
        found = reached(filter(None, roots))
        return {k: v for k, v in (out | found).items() if not k.startswith(PREFIX)}

    def must_have_file(self, name: str) -> None:
        """Refuse what other processes could not load.

        Raises:
            ConfigError: it is registered in a script, a notebook or a module of one.
        """
        origin = self.entry(name).origin
        if origin.startswith("module "):
            raise ConfigError(
                f"{self.kind} {name!r} is registered by {origin}: other processes load plugin "
                "files only; put it into one, and name it with --plugin FILE.py or in the suite"
            )

    def _discover(self) -> None:
        if self._discovered:
            return
        for found in _scan_built_ins(self.kind, self.folder):
            self.entries[found.name] = found
        for point in importlib.metadata.entry_points(group=self.group):
            package = point.dist.name if point.dist else point.value
            _check_name(self.kind, point.name, f" of package {package}")
            old = self.entries.get(point.name)
            if old is not None and old.target != point.value:
                raise PluginError(
                    f"{self.kind} {point.name!r} is registered twice: by {old.origin} "
                    f"and by package {package}; uninstall or rename one"
                )
            home = point.value.partition(":")[0]
            self.entries[point.name] = Entry(
                point.name, self.kind, f"package {package}", target=point.value, home=home
            )
        for other in self.packages:
            for name in other.names():
                full, origin = f"{other.prefix}:{name}", f"package {other.distribution}"
                target, summary = f"{other.adapter}:{name}", f"The layer {name}."
                home = f"{other.module}.{Path(other.exports).parent.name}"
                self.entries[full] = Entry(
                    full, self.kind, origin, summary, other.source, target, home=home
                )
        self._discovered = True


OPERATORS = Registry("operator", "operators", "mechbench.operators", packages=(FLA,))
TASKS = Registry("task", "tasks", "mechbench.tasks")
FILTERS = Registry("filter", "filters", "mechbench.filters")
CATALOGUES = {registry.kind: registry for registry in (OPERATORS, TASKS, FILTERS)}
register_operator = OPERATORS.register
register_task = TASKS.register
register_filter = FILTERS.register


def code_of(entries: Iterable[Entry]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the plugin files of these components with their digests, and the code beyond them.

    Raises:
        PluginError: a component cannot be loaded.
    """
    plugins: dict[str, str] = {}
    sources: dict[str, str] = {}
    for old in entries:
        catalogue = CATALOGUES[old.kind]
        sources |= catalogue.sources(old.name)
        entry = catalogue.entry(old.name)  # complete now that it is loaded
        if entry.digest:
            plugins[entry.origin] = entry.digest
    return plugins, sources


def _scan_built_ins(kind: str, folder: str) -> list[Entry]:
    """Read the registrations in the files of `mechbench/<folder>` without importing them."""
    found = []
    for path in sorted((Path(__file__).parents[1] / folder).glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == f"register_{kind}":
                    name = ast.literal_eval(call.args[0])
                    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
                    summary = (ast.get_docstring(node) or "").split("\n")[0]
                    target = f"mechbench.{folder}.{path.stem}:{node.name}"
                    said = {key: given.get(key, "") for key in ("source", "measures")}
                    found.append(Entry(name, kind, "built-in", summary, target=target, **said))
    return found


# module name -> (path, digest) of the plugin files executed so far
PLUGIN_FILES: dict[str, tuple[str, str]] = {}
LOADING: list[str] = []  # module names of the plugin files being executed, the innermost last


def _check_name(kind: str, name: Any, owner: str = "") -> None:
    if not isinstance(name, str):
        raise PluginError(
            f"register_{kind} was given {name!r}: expected a name, @mechbench.register_{kind}"
            "('name')"
        )
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"{kind} name {name!r}{owner} is not possible: expected 1 to 64 of a-z, A-Z, 0-9 and "
            "- _ . : with a letter or digit in front"
        )


def _same(old: Entry, new: Entry) -> bool:
    """Return whether `new` is `old`: the same object, or the loading of what was only listed."""
    if old.obj is not None:
        return old.obj is new.obj
    return old.target == new.target


def _again(old: Entry, new: Entry) -> bool:
    """Return whether `new` replaces `old` from a notebook cell, a script's loop or a reload."""
    if old.origin != new.origin or not new.origin.startswith("module "):
        return False
    typed_in = file_of(new.home) is None
    named = not new.target.endswith(":")
    return named and (old.target == new.target or typed_in)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def plugin_of(module_name: str) -> str | None:
    """Return the path, as it was given, of the plugin file that a module was loaded from."""
    path, _ = PLUGIN_FILES.get(module_name, (None, ""))
    return path
