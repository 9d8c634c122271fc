"""A digest of a class or function as it is in memory, rather than in its file. No torch.

A notebook, `python -c` and `exec` leave no file, and a loop or a factory makes several classes from
one piece of text. So objects are read as they are: code, defaults, closures, class attributes, base
classes and the globals that the code names. Files are left to `mechbench.catalogue.sources`, which
gets the names of their modules.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import re
import sys
import types
from collections.abc import Iterable
from typing import Any

from mechbench.catalogue.sources import UNKNOWN, file_of, is_file, is_installed

_PLAIN = (
    int, float, complex, bool, str, bytes, type(None), type(...), range, slice, re.Pattern,
)  # fmt: skip
_NAMED = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# Attributes of a class that do not affect what it does.
_SKIPPED = (
    "_abc_impl", "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__",
    "__annotations_cache__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__",
    "__firstlineno__", "__match_args__", "__module__", "__orig_bases__", "__parameters__",
    "__qualname__", "__slots__", "__static_attributes__", "__weakref__", "fidelity",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What was read of an object.

    Attributes:
        digest: digest of everything read; "unknown" if it holds something unreadable.
        modules: modules that it reaches.
        told: whether all its code is in the file of its module.
    """

    digest: str
    modules: frozenset[str]
    told: bool


def fingerprint(obj: Any) -> Fingerprint:
    """Read a class, a function or a partial of one."""
    reader = _Reader(str(getattr(obj, "__module__", "")))
    text = reader.read(obj)
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    modules = frozenset(reader.modules)
    return Fingerprint(digest if reader.known else UNKNOWN, modules, reader.told)


class _Reader:
    """Reads what belongs to the module `home`; of other modules it keeps only names."""

    def __init__(self, home: str) -> None:
        self.home, self.known, self.told = home, True, True
        self.modules: set[str] = set()
        self._read: dict[int, str] = {}
        self._kept: list[Any] = []  # kept alive so that no id() is reused
        self._file = file_of(home)
        if self._file is not None:
            self.modules.add(home)

    def read(self, value: Any) -> str:
        """Return `value` as text."""
        if type(value) in _PLAIN:
            return f"{type(value).__name__} {value!r}"
        if value is dataclasses.MISSING:
            return "missing"
        if type(value) is tuple:
            return f"tuple {self._all(value)}"
        if id(value) in self._read:
            return self._read[id(value)]
        self._read[id(value)] = f"as {len(self._read)}"
        self._kept.append(value)
        return self._by_kind(value)

    def _by_kind(self, value: Any) -> str:
        if isinstance(value, types.ModuleType):
            self.modules.add(value.__name__)
            return f"module {value.__name__}"
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, functools.partial):
            return f"partial {self._all([value.func, value.args, value.keywords])}"
        if isinstance(value, types.MethodType):
            return f"method {self._all([value.__func__, value.__self__])}"
        if isinstance(value, staticmethod | classmethod):
            return f"{type(value).__name__} {self.read(value.__func__)}"
        if isinstance(value, property):
            return f"property {self._all([value.fget, value.fset])}"
        if isinstance(value, functools.cached_property):
            return f"cached {self.read(value.func)}"
        return self._value(value)

    def _value(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, enum.Enum) or (kind.__module__, kind.__name__) in (
            ("torch", "dtype"),
            ("torch", "device"),
        ):
            return repr(value)
        if kind is list:
            return f"list {self._all(value)}"
        if kind in (set, frozenset):
            return f"{kind.__name__} {sorted(map(self.read, value))}"
        if kind in (dict, types.MappingProxyType):
            return f"dict {[(self.read(k), self.read(v)) for k, v in value.items()]}"
        if isinstance(value, _NAMED):
            return f"{getattr(value, '__module__', '')}.{value.__qualname__}"
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, types.FunctionType):
            return f"{kind.__name__} of {self.read(wrapped)}"
        if isinstance(value, _SLOTS):
            return f"slot {value.__name__}"
        # An instance of some class: only the source file can tell how it was made.
        if self._file is None:
            self.known = False
        return f"object of {self.read(kind)}"

    def _all(self, values: Iterable[Any]) -> list[str]:
        return [self.read(value) for value in values]

    def _function(self, function: types.FunctionType) -> str:
        module, code = function.__module__ or self.home, function.__code__
        name = f"function {module}.{function.__qualname__}"
        if module != self.home:
            self.modules.add(module)
            if _has_file(module):
                return name
        if self._file is not None and is_file(code.co_filename, self._file):
            name += f" line {code.co_firstlineno}"  # a file may hold several of one name
        elif not is_installed(code.co_filename):  # such as a wrapper that took over our name
            name, self.told = f"{name} {_code(code)}", False
        held = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        made = self._all([function.__defaults__, function.__kwdefaults__, held])
        return f"{name} {made} {self._globals(function)}"

    def _globals(self, function: types.FunctionType) -> list[str]:
        out = []
        for name, imports in sorted(_names(function.__code__)):
            if imports:
                self.modules.add(name)
            elif name in function.__globals__:
                out.append(f"{name}: {self.read(function.__globals__[name])}")
        return out

    def _class(self, cls: type) -> str:
        name = f"class {cls.__module__}.{cls.__qualname__}"
        if _from_c(cls):
            return name
        if cls.__module__ != self.home:
            self.modules.add(cls.__module__)
            if _has_file(cls.__module__):
                return name
        fields = vars(cls).get("__dataclass_fields__", {})
        made = [(f, d.default, d.default_factory) for f, d in fields.items()]
        members = [
            f"{key}: {self.read(value)}"
            for key, value in sorted(vars(cls).items())
            if not _generated(key, value, bool(fields))
        ]
        return f"{name} {self._all(cls.__bases__)} {self.read(tuple(made))} {members}"


def _generated(key: str, value: Any, is_dataclass: bool) -> bool:
    """Return whether Python itself or `dataclass` made this attribute of a class."""
    inner = getattr(value, "__wrapped__", value)  # of dataclass's __repr__
    if not is_dataclass or not isinstance(inner, types.FunctionType):
        return key in _SKIPPED
    by_it = inner.__code__.co_filename == "<string>" or inner.__module__ == "dataclasses"
    return key.startswith("__") and by_it


def _from_c(cls: type) -> bool:
    return not cls.__flags__ & (1 << 9)  # not a heap type


def _has_file(module: str) -> bool:
    """Return whether a module is identified by its file, or is part of Python."""
    if module in sys.stdlib_module_names and module != "__main__":
        return module != "builtins"  # where `exec` without a name puts its classes
    return file_of(module) is not None


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _code(code: types.CodeType) -> str:
    """Return what code does as text, independent of where it stands."""
    constants = [
        _code(c) if isinstance(c, types.CodeType)
        else str(sorted(map(repr, c))) if isinstance(c, frozenset)
        else repr(c)
        for c in code.co_consts
    ]  # fmt: skip
    return f"{code.co_name} {code.co_varnames} {code.co_names} {code.co_code.hex()} {constants}"


def _names(code: types.CodeType) -> set[tuple[str, bool]]:
    """Return (name, False) for the globals that code uses, (name, True) for its imports."""
    found = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            found.add((str(step.argval), False))
        elif step.opname == "IMPORT_NAME":
            found.add((str(step.argval), True))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
