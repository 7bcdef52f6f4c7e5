"""The service as tools: asked as a language model's program asks, over a whole service."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from serve import mcp
from serve.client import Client
from serve.mcp import TOOLS, McpConfig, Server
from tests.support.listening import listening
from tests.support.workspace import make_workspace


def _call(server: Server, tool: str, **arguments: Any) -> tuple[bool, str]:
    told = {"id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    answer = server.answer(told)
    assert answer is not None
    return answer["result"]["isError"], answer["result"]["content"][0]["text"]


def test_a_model_asks(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    image_id, path = next(iter(made.photos.items()))
    with listening(workspace=str(made.folder)) as at, Client(at.address) as client:
        server = Server(client, path.parent)
        assert set(TOOLS) <= {name for name in vars(Client) if not name.startswith("_")}
        for said in (
            _call(server, "search", photo=path.name, options={"k": 1}),
            _call(server, "search", options={"image_id": image_id, "k": 1}),
        ):
            assert not said[0] and json.loads(said[1])["results"][0]["image_id"] == image_id
        assert json.loads(_call(server, "verify", first=path.name, second=path.name)[1])["score"] > 0.999
        assert json.loads(_call(server, "info")[1])["index"]["num_images"] == len(made.photos)
        assert json.loads(_call(server, "people")[1])["total"] == 0
        assert _call(server, "person", person=3) == (True, "404 not-found: There is no person 3.")
        (path.parent.parent / path.name).write_bytes(path.read_bytes())
        for bad in ("../" + path.name, "/etc/hostname", "gone.jpg"):
            assert _call(server, "search", photo=bad)[0]
        assert "--photos" in _call(server, "search", photo="../x.jpg")[1]
        assert "--photos" in _call(Server(client, None), "search", photo=path.name)[1]
        assert _call(server, "search", options={"colour": 1})[0]
        assert _call(server, "delete", image_id=image_id)[0], "it changes nothing"
        assert client.image(image_id).image_id == image_id


@pytest.mark.parametrize(
    ("line", "code", "message_id"),
    [
        ("{", -32700, None),
        ("[" * 100_000, -32700, None),
        ("[]", -32600, None),
        ("7", -32600, None),
        ('{"id": 3}', -32600, 3),
        ('{"id": {}, "method": 4}', -32600, None),
        ('{"id": "a", "method": "tools/call", "params": [1]}', -32602, "a"),
        ('{"id": 1, "method": "x"}', -32601, 1),
    ],
)
def test_a_line_that_is_no_message_is_answered_and_the_next_one_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, code: int, message_id: Any
) -> None:
    quiet = '{"method": "notifications/x", "params": [1]}'
    monkeypatch.setattr("sys.stdin", io.StringIO(f'{line}\n{quiet}\n{{"id": 9, "method": "ping"}}\n'))
    monkeypatch.setattr(mcp, "Client", lambda address, key: Client("http://127.0.0.1:9", key=key, timeout_s=1))
    mcp.main(McpConfig())
    wrong, right = [json.loads(said) for said in capsys.readouterr().out.splitlines()]
    assert (wrong["id"], wrong["error"]["code"], wrong["jsonrpc"]) == (message_id, code, "2.0")
    assert right == {"jsonrpc": "2.0", "id": 9, "result": {}}


def test_the_protocol(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": "a", "method": "ping"},
        {"jsonrpc": "2.0", "id": 3, "method": "resources/list"},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "info"}},
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(json.dumps(one) for one in said) + "\n\n"))
    monkeypatch.setattr(mcp, "Client", lambda address, key: Client("http://127.0.0.1:9", key=key, timeout_s=1))
    mcp.main(McpConfig())
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["id"] for one in told] == [1, 2, "a", 3, 4]
    assert told[0]["result"]["capabilities"] == {"tools": {}}
    assert [tool["name"] for tool in told[1]["result"]["tools"]] == list(TOOLS)
    assert all(tool["inputSchema"]["type"] == "object" for tool in told[1]["result"]["tools"])
    for schema in (tool["inputSchema"] for tool in told[1]["result"]["tools"]):
        named = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
        assert named <= set(schema["$defs"]) and bool(named) == ("options" in schema["properties"])
    assert told[3]["error"]["code"] == -32601
    assert told[4]["result"]["isError"]
