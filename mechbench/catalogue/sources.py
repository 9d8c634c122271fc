"""The code beyond this package that decides a result: local modules by digest, packages by version.

A module is local if it is neither in the standard library nor installed: a script, files beside it,
an editable install. What counts is its text at the time it was executed. No torch.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"  # in place of a digest: no other run may reuse the result
# Their versions are in a result's provenance, but never part of an id, as for the built-ins.
_OWN = (
    "mechbench", "click", "filelock", "matplotlib", "numpy", "pandas", "pydantic", "scipy",
    "torch", "tqdm",
)  # fmt: skip
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class _Seen:
    """A module's text as it was executed, and which execution it was."""

    module: types.ModuleType
    spec: ModuleSpec | None  # `importlib.reload` makes a new object
    text: bytes


_SEEN: dict[str, _Seen] = {}
# Modules that were loaded from a file but not entered into `sys.modules`.
_LOOSE: dict[str, types.ModuleType] = {}


def executed(module: types.ModuleType, text: bytes) -> None:
    """Note the text that a module was executed from, if the caller executed it itself."""
    _SEEN[module.__name__] = _Seen(module, module.__spec__, text)


def reached(roots: Iterable[str]) -> dict[str, str]:
    """Return what can be reached by imports from the modules `roots`, including these.

    The name of a local module maps to the digest of its text, or to "unknown"; the distribution of
    an installed package maps to its version. What mechbench itself depends on is left out.
    """
    found: dict[str, str] = {}
    waiting, done, held = list(roots), set(), set(roots)
    while waiting:
        name = _known_as(waiting.pop())
        top = name.partition(".")[0]
        if name in done or (top in sys.stdlib_module_names and name != "__main__"):
            continue
        done.add(name)
        if top in _OWN:
            continue
        file = file_of(name)
        if file is None:
            # Made in memory rather than read; or in use, but its module cannot be found.
            if _is_plain(name) or (name in held and _module(top) is None):
                found[name] = UNKNOWN
            continue
        if not is_local(file) and (versions := _versions(top)):
            found |= versions
            continue
        text, known = _text(name, Path(file))
        found[name] = hashlib.sha256(text).hexdigest() if known else UNKNOWN
        waiting += _imported(name, text, Path(file))
        held |= _held(name)
        waiting += held - done
    return dict(sorted(found.items()))


def edited(names: Iterable[str]) -> list[str]:
    """Return which of these modules have files that differ from what was executed."""
    out = []
    for name in names:
        seen, file = _SEEN.get(name), file_of(name)
        if seen is not None and file is not None:
            with contextlib.suppress(OSError):
                if Path(file).read_bytes() != seen.text:
                    out.append(name)
    return out


@functools.lru_cache(maxsize=4096)
def is_local(file: str) -> bool:
    """Return whether a file is in the user's project: neither installed nor part of mechbench."""
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts) or path.is_relative_to(_PACKAGE):
        return False
    return not any(path.is_relative_to(folder) for folder in _installed())


@functools.lru_cache(maxsize=4096)
def is_installed(file: str) -> bool:
    """Return whether a file exists and is not in the user's project."""
    return Path(file).is_file() and not is_local(file)


@functools.lru_cache(maxsize=4096)
def is_file(one: str, other: str) -> bool:
    """Return whether two names mean the same file."""
    return one == other or Path(one).resolve() == Path(other).resolve()


@functools.cache
def _installed() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names] + [site.getusersitepackages()]
    return tuple(Path(folder).resolve() for folder in folders if folder)


def _known_as(name: str) -> str:
    return "__main__" if name == "__mp_main__" else name  # the script, in a process that it started


def file_of(name: str) -> str | None:
    """Return the file that a module is or would be loaded from; None for what was typed in."""
    module = _module(name)
    if module is not None:
        file = _told(module, "__file__")
        real = isinstance(file, str) and (name in _SEEN or Path(file).is_file())  # no "<stdin>"
        return file if real else None
    spec = _spec(name)
    return spec.origin if spec is not None and spec.has_location else None


def _module(name: str) -> types.ModuleType | None:
    return sys.modules.get(name) or _LOOSE.get(name)


def _is_plain(name: str) -> bool:
    """Return whether it is a loaded module but not a package, which may lack a file."""
    module = _module(name)
    return module is not None and _told(module, "__path__") is None


def _told(module: types.ModuleType, name: str) -> Any:
    """Return an attribute, None if there is none; a module that imports when asked is not asked."""
    return inspect.getattr_static(module, name, None)


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without importing the packages around it."""
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        if name in sys.modules:
            return sys.modules[name].__spec__
        parent = name.rpartition(".")[0]
        if not parent:
            return importlib.util.find_spec(name)
        above = _spec(parent)
        if above is not None and above.submodule_search_locations is not None:
            return PathFinder.find_spec(name, list(above.submodule_search_locations))
    return None


def _text(name: str, file: Path) -> tuple[bytes, bool]:
    """Return the text that a module was executed from, and whether the module still matches it."""
    module = _module(name)
    spec = getattr(module, "__spec__", None)
    seen = _SEEN.get(name)
    if seen is None or seen.module is not module or seen.spec is not spec:
        try:
            text = file.read_bytes()
        except OSError:  # deleted, or in an archive
            return b"", False
        if module is None:
            return text, True  # to be imported later
        seen = _SEEN[name] = _Seen(module, spec, text)
    return seen.text, _is_of(seen.module, seen.text, file)


def _is_of(module: types.ModuleType, text: bytes, file: Path) -> bool:
    """Return whether a loaded module's functions and constants are those of `text`.

    If not, the file was edited before it was first read here, or another module changed them.
    """
    loader = getattr(module, "__loader__", None)
    if file.suffix != ".py" or type(loader) is not SourceFileLoader:
        return True  # compiled, or changed on its way in: nothing to compare with
    codes, constants = _contents(text, str(file))
    own = [code for code in _functions(module) if is_file(code.co_filename, str(file))]
    if any(_key(code) not in codes for code in own):
        return False
    return all(
        _same(value, vars(module)[name]) for name, value in constants if name in vars(module)
    )


@functools.lru_cache(maxsize=1024)
def _contents(text: bytes, file: str) -> tuple[frozenset[object], tuple[tuple[str, object], ...]]:
    """Return the functions of a source text, and the constants that it assigns only once."""
    try:
        tree = ast.parse(text)
        codes = frozenset(_codes(compile(text, file, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):
        return frozenset(), ()
    changing = {n for node in ast.walk(tree) if isinstance(node, ast.Global) for n in node.names}
    return codes, tuple((n, value) for n, value in _constants(tree) if n not in changing)


def _codes(code: types.CodeType) -> Iterator[object]:
    yield _key(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _key(code: types.CodeType) -> object:
    constants = tuple(
        _key(c) if isinstance(c, types.CodeType)
        else tuple(sorted(map(repr, c))) if isinstance(c, frozenset)
        else repr(c)
        for c in code.co_consts
    )  # fmt: skip
    return code.co_name, code.co_firstlineno, code.co_code, code.co_names, constants


def _functions(module: types.ModuleType) -> Iterator[types.CodeType]:
    for value in list(vars(module).values()):
        members = [value]
        if isinstance(value, type) and value.__module__ == module.__name__:
            members = list(vars(value).values())
        for member in members:
            inner = getattr(member, "fget", None) if isinstance(member, property) else member
            inner = inner.__func__ if isinstance(inner, staticmethod | classmethod) else inner
            if isinstance(inner, types.FunctionType):
                yield inner.__code__


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    # Loops and branches may give a name another value.
    stored = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _stores(n)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name) and stored.count(target.id) == 1:
                with contextlib.suppress(ValueError, TypeError, SyntaxError):
                    value = ast.literal_eval(node.value)
                    if isinstance(value, int | float | str | bytes | tuple):
                        yield target.id, value


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store | ast.Del)


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and repr(a) == repr(b)


def _imported(name: str, text: bytes, file: Path) -> set[str]:
    """Return the modules that a local module's text imports, and the packages around them."""
    inside = name if file.stem == "__init__" else name.rpartition(".")[0]
    package = getattr(_module(name), "__package__", None) or inside
    found = set(_named(text, package)) if file.suffix == ".py" else set()
    return found | {n.rsplit(".", i)[0] for n in (*found, name) for i in range(1, n.count(".") + 1)}


def _held(name: str) -> set[str]:
    """Return the modules that the names of a loaded module come from."""
    found = set()
    for value in list(vars(_module(name)).values()) if _module(name) is not None else ():
        with contextlib.suppress(Exception):  # a proxy may raise anything when accessed
            home = value.__module__ if not isinstance(value, types.ModuleType) else value.__name__
            if isinstance(value, types.ModuleType) and home not in sys.modules:
                _LOOSE[home] = value
            if isinstance(home, str):
                found.add(home)
    return found


@functools.lru_cache(maxsize=1024)
def _named(text: bytes, package: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            given = node.args[0]
            if called in ("import_module", "__import__") and isinstance(given, ast.Constant):
                found.add(str(given.value))
    return tuple(sorted(n for n in found if n and not n.startswith(".")))


@functools.cache
def _versions(top: str) -> dict[str, str]:
    """Return the distributions that provide a top-level package, with their versions."""
    names = [top]
    try:
        metadata.distribution(top)
    except (metadata.PackageNotFoundError, ValueError):
        names = metadata.packages_distributions().get(top, [])
    return {name: version(name) for name in sorted(set(names))}


def version(distribution: str) -> str:
    """Return a distribution's version, plus commit or digest if code may change without it.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    found = metadata.distribution(distribution)
    told = found.read_text("direct_url.json")
    try:
        origin = json.loads(told) if told else {}
    except ValueError:
        origin = {}
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f"{found.version}+{commit[:12]}"
    if "dir_info" in origin:  # from a folder, whose code may change under one version
        digest = hashlib.sha256()
        for file in sorted(found.files or ()):
            if file.suffix in (".py", ".so", ".pyd"):
                with contextlib.suppress(OSError):
                    digest.update(file.read_binary())
        return f"{found.version}+{digest.hexdigest()[:12]}"
    return found.version
