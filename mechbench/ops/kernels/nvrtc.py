"""CUDA C++ kernels, compiled where they run by NVRTC and kept in Triton's cache.

NVRTC and its Python binding come with PyTorch's CUDA builds on Linux (2.10 and later); nothing
else, no compiler, has to be installed. Compiled modules lie where Triton keeps its own.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int, "l": ctypes.c_longlong, "f": ctypes.c_float}
_FILE = "module.cubin"
_noted: list[Source] | None = None  # what would have been launched, where nothing is


@cache
def missing() -> str | None:
    """Say why nothing can be compiled here: the binding, or the library under it, is missing."""
    try:
        from cuda.bindings import driver, nvrtc

        _checked(nvrtc.nvrtcVersion())
        _checked(driver.cuDriverGetVersion())
    except ImportError:
        return "cuda-bindings is not installed: pip install 'mechbench[cuda]'"
    except Exception as error:  # a library of another CUDA
        return f"NVRTC does not load: {' '.join(str(error).split())[:200]}"
    return None


class Source(NamedTuple):
    """What is compiled, and for which GPU: sm_90 and the like."""

    text: str
    architecture: str


class Module:
    """The kernels of a source, on one device."""

    def __init__(self, source: Source, index: int) -> None:
        """Compile nothing yet.

        Args:
            source: of the kernels.
            index: of the CUDA device.
        """
        self._source, self._index = source, index
        self._functions: dict[tuple[str, int], Any] = {}

    @cached_property
    def _handle(self) -> Any:
        return _driver("cuModuleLoadData", compiled(self._source))

    def launch(
        self,
        name: str,
        types: str,
        arguments: Sequence[Any],
        *,
        grid: tuple[int, int],
        threads: int,
        shared: int,
    ) -> None:
        """Start a kernel on the device's current stream.

        Args:
            name: of the kernel, as C knows it.
            types: a letter an argument: p a tensor's data, i an int, l a long long, f a float.
            arguments: one for each letter; None is no tensor.
            grid: blocks along x and y.
            threads: a block.
            shared: bytes of dynamic shared memory a block.

        Raises:
            RuntimeError: NVRTC refuses the source, and its log says why, or the launch failed.
        """
        if _noted is not None:
            _noted.append(self._source)
            return
        values = tuple(_value(x) for x in arguments)
        with torch.cuda.device(self._index):
            _enter_context()
            _driver(
                "cuLaunchKernel",
                self._function(name, shared),
                *(*grid, 1),
                *(threads, 1, 1),
                shared,
                torch.cuda.current_stream().cuda_stream,
                (values, tuple(_TYPES[letter] for letter in types)),
                0,
            )

    def _function(self, name: str, shared: int) -> Any:
        key = name, shared
        if key not in self._functions:
            from cuda.bindings import driver

            function = _driver("cuModuleGetFunction", self._handle, name.encode())
            most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _driver("cuFuncSetAttribute", function, most, shared)
            self._functions[key] = function
        return self._functions[key]


def _value(argument: Tensor | float | None) -> Any:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return 0 if argument is None else argument


@contextmanager
def noted() -> Iterator[list[Source]]:
    """Launch nothing while the context lasts; give the sources that are not compiled."""
    global _noted
    _noted = []
    found: list[Source] = []
    try:
        yield found
    finally:
        found.extend(source for source in dict.fromkeys(_noted) if _kept(source)[1] is None)
        _noted = None


@cache
def module(text: str, index: int) -> Module:
    """Return the kernels of the source `text` on the CUDA device of that index."""
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(index))
    return Module(Source(text, architecture), index)


def compiled(source: Source) -> bytes:
    """Return the binary of a source, compiled unless that was done before.

    Raises:
        RuntimeError: NVRTC refuses the source; its log is the message.
    """
    cache, path = _kept(source)
    if path is not None:
        with open(path, "rb") as file:
            return file.read()
    code = _compile(source.text, source.architecture)
    cache.put(code, _FILE, binary=True)
    return code


def _kept(source: Source) -> tuple[Any, str | None]:
    """Return the cache's entry for a source, and its file, if it is there."""
    from cuda.bindings import nvrtc
    from triton.runtime.cache import get_cache_manager

    version = _checked(nvrtc.nvrtcVersion())
    key = hashlib.sha256(repr((tuple(source), version)).encode()).hexdigest()
    entry = get_cache_manager(key)
    return entry, entry.get_file(_FILE)


def _compile(source: str, architecture: str) -> bytes:
    from cuda.bindings import nvrtc

    program = _checked(nvrtc.nvrtcCreateProgram(source.encode(), b"mechbench.cu", 0, [], []))
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status.value:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"NVRTC: {log.decode()}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return code


def _enter_context() -> None:
    """Make the device's context current: PyTorch's thread of backward passes may have none yet."""
    if int(_driver("cuCtxGetCurrent")) == 0:
        context = _driver("cuDevicePrimaryCtxRetain", torch.cuda.current_device())
        _driver("cuCtxSetCurrent", context)


def _driver(name: str, *arguments: Any) -> Any:
    from cuda.bindings import driver

    return _checked(getattr(driver, name)(*arguments))


def _checked(answer: tuple[Any, ...]) -> Any:
    """Return what a call of the binding gives beside its status.

    Raises:
        RuntimeError: the status is an error.
    """
    status, *results = answer
    if status.value:
        raise RuntimeError(f"CUDA: {status.name}")
    return results[0] if len(results) == 1 else tuple(results)
