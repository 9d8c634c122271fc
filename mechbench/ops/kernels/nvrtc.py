"""CUDA C++ kernels, compiled where they run by NVRTC and kept in Triton's cache.

NVRTC and its Python binding come with PyTorch's CUDA builds on Linux (2.10 and later); nothing
else, no compiler, has to be installed. Compiled modules lie where Triton keeps its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int, "l": ctypes.c_longlong, "f": ctypes.c_float}


@cache
def has_nvrtc() -> bool:
    """Return whether the binding of NVRTC and of the driver is installed."""
    try:
        return importlib.util.find_spec("cuda.bindings.nvrtc") is not None
    except ModuleNotFoundError:
        return False


class Module:
    """The compiled kernels of a source, on one device."""

    def __init__(self, code: bytes) -> None:
        """Load `code`, a cubin, into the current device's context."""
        self._handle = _driver("cuModuleLoadData", code)
        self._functions: dict[tuple[str, int], Any] = {}

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
        """Start a kernel on the current stream.

        Args:
            name: of the kernel, as C knows it.
            types: a letter an argument: p a tensor's data, i an int, l a long long, f a float.
            arguments: one for each letter; None is no tensor.
            grid: blocks along x and y.
            threads: a block.
            shared: bytes of dynamic shared memory a block.
        """
        _enter_context()
        values = tuple(_value(x) for x in arguments)
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


def module(source: str, device: torch.device) -> Module:
    """Return the kernels of `source` on `device`, compiled unless that was done before.

    Raises:
        RuntimeError: NVRTC refuses the source; its log is the message.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    return _module(source, index)


@cache
def _module(source: str, index: int) -> Module:
    with torch.cuda.device(index):
        _enter_context()
        return Module(_compiled(source, "sm_{}{}".format(*torch.cuda.get_device_capability(index))))


def _compiled(source: str, architecture: str) -> bytes:
    from cuda.bindings import nvrtc
    from triton.runtime.cache import get_cache_manager

    version = _checked(nvrtc.nvrtcVersion())
    key = hashlib.sha256(repr((source, architecture, version)).encode()).hexdigest()
    kept = get_cache_manager(key)
    path = kept.get_file("module.cubin")
    if path is not None:
        with open(path, "rb") as file:
            return file.read()
    code = _compile(source, architecture)
    kept.put(code, "module.cubin", binary=True)
    return code


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
