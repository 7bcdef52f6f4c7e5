"""Pickles of other people's data, read without running anything in them: plain containers, numbers, text and arrays."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_BYTES = 512 << 20

MAX_VALUES = 20_000_000

_MAX_DEPTH = 50


class _PlainUnpickler(pickle.Unpickler):
    """Admits numpy's own array constructors, each wrapped to check what it makes; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        parts = module.replace("numpy._core", "numpy.core")
        if parts in ("numpy.core.multiarray", "numpy") and name in _ADMITTED:
            return _Maker(_ADMITTED[name])
        if (module, name) == ("_codecs", "encode"):
            return _Maker(_encode)  # how protocol 2 writes an array's bytes
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _Maker(_BUILTINS[name])  # how protocols before 4 write these
        raise ValueError(
            f"The pickle wants to use {module}.{name}. Only lists, dicts, numbers, strings and numeric arrays are "
            f"read; a ground-truth file holds nothing else. Do not trust this file."
        )

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("The pickle refers to objects outside itself; a ground-truth file does not.")


class _Maker:
    """An admitted name. Callable and nothing else: a pickle can set no attribute on what is behind it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("The pickle sets attributes on a function, which no ground-truth file does.")


def _encode(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"The pickle encodes {type(text).__name__} as {encoding!r}, expected text as 'latin1'.")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""  # longer ones come by _encode; bytes(n) would take any amount of memory


def _set(items: Any) -> set[Any]:
    if not isinstance(items, list):
        raise ValueError(f"The pickle makes a set of {type(items).__name__}, expected a list.")
    return set(items)


_BUILTINS: dict[str, Callable[..., Any]] = {"bytes": _no_bytes, "set": _set}


class _Dtype:
    """A numeric dtype, and nothing that holds objects."""

    def __new__(cls, code: Any, *_: Any) -> Any:
        if not isinstance(code, str):
            raise ValueError(f"The pickle makes a dtype of {type(code).__name__}, expected a text.")
        made = np.dtype(code)
        if made.kind not in "biufcSU" or made.names is not None:
            raise ValueError(f"The pickle holds an array of {made}, expected numbers or text.")
        return _DtypeHolder(made)


class _DtypeHolder:
    """Takes the state that pickle sets on a dtype, of which only the byte order is used."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


class _ArrayHolder:
    """An array in the making."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, holder, fortran, data = state
        if not isinstance(holder, _DtypeHolder) or not isinstance(data, bytes):
            raise ValueError("The pickle holds an array of objects, expected numbers or text.")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"The pickle holds an array of shape {shape!r}.")
        flat = np.frombuffer(data, dtype=holder.dtype).copy()  # writable, as an array read from anywhere is
        self.array = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _ArrayHolder:
    return _ArrayHolder()


def _scalar(holder: Any, data: Any = b"") -> Any:
    if not isinstance(holder, _DtypeHolder) or not isinstance(data, bytes):
        raise ValueError("The pickle holds an odd numpy scalar.")
    return np.frombuffer(data, dtype=holder.dtype)[0]


_ADMITTED: dict[str, Any] = {
    "_reconstruct": _reconstruct,
    "ndarray": _ArrayHolder,
    "dtype": _Dtype,
    "scalar": _scalar,
}


def load_plain(data: bytes) -> Any:
    """The content of a pickle of plain values: dict, list, tuple, set, numbers, strings, bytes, numeric arrays.

    Raises: ValueError for anything else, before it is made.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"The pickle has {len(data)} bytes, the limit is {MAX_BYTES}.")
    try:
        return _Unwrapping().value(_PlainUnpickler(io.BytesIO(data), encoding="latin1").load())
    except ValueError:
        raise
    except Exception as error:  # a broken pickle raises many types
        raise ValueError(f"The file is not a readable pickle: {type(error).__name__}: {error}") from error


class _Unwrapping:
    """Puts arrays in the place of their holders. What is shared is counted each time it is met, so that a small file
    of lists of the same list cannot unfold without end."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise ValueError(f"The pickle unfolds to over {MAX_VALUES} values or {_MAX_DEPTH} levels.")
        if isinstance(value, _ArrayHolder):
            return value.array
        if isinstance(value, dict):
            return {self.value(key, depth + 1): self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return type(value)(self.value(item, depth + 1) for item in value)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
            return value
        raise ValueError(f"The pickle holds a {type(value).__name__}, expected plain values.")
