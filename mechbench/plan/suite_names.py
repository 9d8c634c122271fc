"""The suites that come with mechbench, found by name from any folder. No torch."""

from __future__ import annotations

from pathlib import Path

from mechbench.errors import ConfigError, nearest

_PACKAGE = Path(__file__).parents[1]


def shipped_suites() -> dict[str, Path]:
    """Return the file of every suite that comes with mechbench, by name."""
    folder = shipped_folder("_suites", "tasks")
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def shipped_folder(in_wheel: str, in_checkout: str) -> Path:
    """Return the folder of what comes with mechbench: a wheel's, or that beside a checkout's."""
    folder = _PACKAGE / in_wheel
    return folder if folder.is_dir() else _PACKAGE.parent / in_checkout


def find_suite(given: str) -> Path:
    """Return the file that a name such as `quick`, or a path such as `tasks/quick.toml`, means.

    Raises:
        ConfigError: a name, without a slash and without .toml, that no shipped suite has.
    """
    path = Path(given)
    if path.suffix == ".toml" or path.name != given:
        return path
    shipped = shipped_suites()
    if given not in shipped:
        raise ConfigError(
            f"unknown suite {given!r}: {nearest(given, shipped)}, or give the path of a .toml file"
        )
    return shipped[given]
