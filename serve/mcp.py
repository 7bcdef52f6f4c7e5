"""The query service as tools of a language model: the Model Context Protocol on stdin and stdout, a line a message.

python -m serve.mcp --address http://127.0.0.1:8000

It changes nothing, and reads photos only where whoever starts it says so.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import tyro

from serve.client import ApiError, Client
from serve.schemas import SearchOptions

PROTOCOL = "2025-06-18"
_PHOTO = {"type": "string", "description": "File of a photo, below the folder that --photos names."}
_OPTIONS = {**SearchOptions.model_json_schema(), "description": "k, filter, image_id, text, ..."}
_NAMED = _OPTIONS.pop("$defs")  # references begin at the whole schema of a tool, so what they name must be there
_PERSON = {"type": "integer", "description": "Number of a person."}
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "search": (
        "Images most like a photo, an image_id or, where info says features.text, words.",
        {"photo": _PHOTO, "options": _OPTIONS},
    ),
    "verify": ("Whether two photos show the same.", {"first": _PHOTO, "second": _PHOTO}),
    "people": ("The people that were found, those of most photos first.", {}),
    "person": ("One person's photos.", {"person": _PERSON}),
    "info": ("What the gallery is, and what can be asked of it.", {}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class McpConfig:
    """Where the service is, and what may be shown to it."""

    address: str = "http://127.0.0.1:8000"
    """Of the query service."""
    photos: str = ""
    """Folder whose photos may be read; empty: none, and only what is in the gallery is searched with."""


@dataclass(frozen=True, slots=True)
class Server:
    """Answers one message after another."""

    client: Client
    photos: Path | None

    def answer_line(self, line: str) -> dict[str, Any] | None:
        """Whatever a line is: one that is no message has an error of JSON-RPC for an answer, and ends nothing."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return _error(None, -32700, "This line is no JSON.")
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            known = message.get("id") if isinstance(message, dict) else None
            told = known if isinstance(known, str | int) else None
            return _error(told, -32600, "This is no request: expected an object with a method.")
        if not isinstance(message.get("params") or {}, dict):
            return _error(message["id"], -32602, "params is no object.") if "id" in message else None
        return self.answer(message)

    def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """None for what wants no answer."""
        if "id" not in message:
            return None
        told, method = {"jsonrpc": "2.0", "id": message["id"]}, message.get("method")
        if method == "tools/call":
            return {**told, "result": self._call(message.get("params") or {})}
        about = {"name": "image-retrieval", "version": "1"}
        results: dict[Any, dict[str, Any]] = {
            "initialize": {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": about},
            "ping": {},
            "tools/list": {"tools": [_described(name) for name in TOOLS]},
        }
        if method in results:
            return {**told, "result": results[method]}
        return _error(message["id"], -32601, f"There is no method {method!r}.")

    def _call(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            text, failed = self._ask(str(params.get("name")), params.get("arguments") or {}), False
        except (ApiError, httpx.HTTPError, ValueError, OSError, KeyError, TypeError) as error:
            text, failed = str(error), True
        return {"content": [{"type": "text", "text": text}], "isError": failed}

    def _ask(self, tool: str, given: dict[str, Any]) -> str:
        if tool not in TOOLS or not isinstance(given, dict):
            raise ValueError(f"There is no tool {tool!r} that takes {type(given).__name__}.")
        photos = {name: self._photo(given.pop(name)) for name in ("photo", "first", "second") if name in given}
        if tool == "search":
            return self.client.search(photos.get("photo"), **given.get("options", {})).model_dump_json(
                exclude_none=True
            )
        return getattr(self.client, tool)(*photos.values(), **given).model_dump_json(exclude_none=True)

    def _photo(self, name: str) -> Path:
        """Raises: ValueError for a file that is not below the folder of photos."""
        if self.photos is None or not (path := (self.photos / name).resolve()).is_relative_to(self.photos.resolve()):
            raise ValueError(f"{name!r} may not be read: it is not below the folder that --photos names.")
        return path


def _error(message_id: str | int | None, code: int, says: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message_id, "error": {"code": code, "message": says}}


def _described(name: str) -> dict[str, Any]:
    says, properties = TOOLS[name]
    schema = {"type": "object", "properties": properties, "$defs": _NAMED if "options" in properties else {}}
    return {"name": name, "description": says, "inputSchema": schema}


def main(cfg: McpConfig) -> None:
    """Until stdin ends. The key of the service, if it wants one, is in $RETRIEVAL_KEY."""
    with Client(cfg.address, key=os.environ.get("RETRIEVAL_KEY")) as client:
        server = Server(client, Path(cfg.photos) if cfg.photos else None)
        for line in sys.stdin:
            if line.strip() and (answer := server.answer_line(line)) is not None:
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(tyro.cli(McpConfig, prog="python -m serve.mcp", description=__doc__))
