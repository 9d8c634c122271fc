"""Plugin files: executed once, undone completely if they fail, replaced if they were edited."""

from __future__ import annotations

import hashlib
import os
import sys
import types
from collections.abc import Iterable

from mechbench.catalogue.plugin_run import execute
from mechbench.catalogue.registry import CATALOGUES, LOADING, PLUGIN_FILES, PREFIX, Entry
from mechbench.catalogue.settings import path_of, shown
from mechbench.catalogue.sources import executed, reached
from mechbench.errors import ConfigError, PluginError

VARIABLE = "MECHBENCH_PLUGINS"
_keeping = False  # if True, loaded plugin files are not read again


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Execute a plugin file, which registers components; a second load is a no-op.

    A file edited since it was loaded is executed again and replaces what it registered.

    Raises:
        ConfigError: `path` is not a path.
        PluginError: the file is unreadable, raises, or registers nothing.
    """
    file = path_of("plugin", path).resolve()
    old = [name for name in PLUGIN_FILES if _file_of(name) == str(file)]
    if old and _keeping:
        return
    try:
        code = file.read_bytes()
    except OSError as error:
        raise PluginError(f"plugin {path} cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(code).hexdigest()
    module_name = f"{PREFIX}{file.stem}_{digest[:12]}"
    if module_name in sys.modules:
        return
    if file.suffix != ".py":
        raise PluginError(f"plugin {path} is not a Python file: expected a name ending in .py")
    before = _contents()
    plugins = dict(PLUGIN_FILES)
    for name in old:
        forget(name)
    module = types.ModuleType(module_name)
    module.__file__ = str(file)
    sys.modules[module_name] = module  # dataclasses and pickling look the module up by name
    PLUGIN_FILES[module_name] = (os.fspath(path), digest)  # as given: results name no home folder
    LOADING.append(module_name)
    executed(module, code)
    without = _contents()
    try:
        execute(module, code, path)
        if without == _contents():
            raise PluginError(
                f"plugin {path} registers nothing: decorate a class with "
                "@mechbench.register_operator('name'), @mechbench.register_task('name') or "
                "@mechbench.register_filter('name')"
            )
    except BaseException:
        del sys.modules[module_name]
        PLUGIN_FILES.clear()
        PLUGIN_FILES.update(plugins)
        for registry in CATALOGUES.values():
            registry.entries.clear()
            registry.entries.update(before[registry.kind])
        raise
    finally:
        LOADING.remove(module_name)
    for name in old:
        sys.modules.pop(name, None)
    reached([module_name])  # read now: helpers may be edited before the run


def _contents() -> dict[str, dict[str, Entry]]:
    """Return what every catalogue holds."""
    return {r.kind: {name: r.entry(name) for name in r.names()} for r in CATALOGUES.values()}


def _file_of(module_name: str) -> str | None:
    return getattr(sys.modules.get(module_name), "__file__", None)


def forget(module_name: str) -> None:
    """Forget what a plugin file registered."""
    del PLUGIN_FILES[module_name]
    for registry in CATALOGUES.values():
        for name in [n for n, entry in registry.entries.items() if entry.home == module_name]:
            del registry.entries[name]


def load_plugins(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ()) -> None:
    """Load the plugin files given and those in MECHBENCH_PLUGINS (separated as in PATH).

    Raises:
        ConfigError: `paths` is neither a path nor a list of paths.
        PluginError: as `load_plugin`.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    try:
        listed = list(given)
    except TypeError:  # not iterable, or a tensor without dimensions
        raise ConfigError(f"plugins is {shown(paths)}: expected a list of paths") from None
    for path in (*filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)), *listed):
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"plugins holds {shown(path)}: expected paths")
        load_plugin(path)


def loaded_plugins() -> set[str]:
    """Return the digests of the plugin files that are loaded."""
    return {digest for _, digest in PLUGIN_FILES.values()}


def keep_plugins() -> None:
    """Keep the plugin files as they are loaded, even if they are edited.

    For processes that run cells planned elsewhere: a result is stored under the id of the code with
    which it was planned.
    """
    global _keeping
    _keeping = True
