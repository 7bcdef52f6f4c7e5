"""Forms (multipart/form-data), taken apart in memory: what strangers upload never reaches a disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from serve.edge import Refusal

MAX_PARTS = 1024


@dataclass(slots=True)
class Part:
    """One part of a form. filename: as the client says; never a path of ours."""

    name: str = ""
    filename: str | None = None
    content_type: str = "text/plain"
    data: bytes = field(default=b"", repr=False)


def is_form(content_type: str | None) -> bool:
    return (content_type or "").split(";")[0].strip().lower() == "multipart/form-data"


def parts_of(body: bytes, content_type: str, max_parts: int = MAX_PARTS) -> list[Part]:
    """The parts in the order they were sent.

    Args: content_type: the header, which names the boundary.

    Raises: Refusal bad-request for what is no whole form, or too many parts.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= 200 or not boundary.isascii():
        raise Refusal("bad-request", "The form has no boundary: its Content-Type must say boundary=...")
    reader = _Reader(max_parts)
    try:
        parser = MultipartParser(boundary.encode(), reader.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise Refusal("bad-request", f"The form cannot be read: {error}.") from error
    if not reader.ended:
        raise Refusal("bad-request", "The form ends too early; it may not have been sent whole.")
    return reader.parts


class _Reader:
    """Collects what the parser calls out."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._max = max_parts
        self._header = (bytearray(), bytearray())
        self._headers: dict[str, str] = {}
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._max:
            raise Refusal("bad-request", f"The form has more than {self._max} parts.")
        self._headers, self._data = {}, []

    def _header_end(self) -> None:
        name, value = (bytes(part).decode("utf-8", "replace") for part in self._header)
        self._headers[name.strip().lower()] = value.strip()
        self._header = (bytearray(), bytearray())

    def _end(self) -> None:
        disposition = Message()
        disposition["content-disposition"] = self._headers.get("content-disposition", "")
        name = disposition.get_param("name", "", "content-disposition")
        kind = self._headers.get("content-type", "text/plain").split(";")[0].strip().lower()
        data = self._data[0] if len(self._data) == 1 else b"".join(self._data)
        self.parts.append(Part(name=str(name), filename=disposition.get_filename(), content_type=kind, data=data))

    def _finish(self) -> None:
        self.ended = True
