"""How requests come in: what Ray Serve's processes find in their environment, and that HAProxy stays on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from serve import ingress
from serve.ingress import environment, free_port

CONFIG = """global
    stats socket /tmp/x/admin.sock mode 666 level admin expose-fd listeners
frontend prometheus
    bind :9101
frontend http_frontend
    bind *:8000
listen stats
  bind *:8404
"""


def test_each_way_in_has_its_environment(tmp_path: Path) -> None:
    plain = environment("serve", tmp_path)
    assert plain["RAY_worker_niceness"] == "0" and plain["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"] == "0.5"
    assert not any("DIRECT" in name or "HAPROXY" in name for name in plain)
    found = environment("haproxy", tmp_path)
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == found["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "1"
    assert all(value.startswith(str(tmp_path)) for name, value in found.items() if "SOCKET" in name or "FILE" in name)
    assert found["RAY_SERVE_HAPROXY_METRICS_PORT"] != found["RAY_SERVE_HAPROXY_STATS_PORT"]
    assert os.access(found["RAY_SERVE_HAPROXY_BINARY_PATH"], os.X_OK)
    assert Path(found["RETRIEVAL_HAPROXY"]).name == "haproxy"


@pytest.mark.parametrize("arguments", [["-db", "-f", "CONFIG"], ["-db", "-f", "CONFIG", "-x", "old.sock", "-sf", "7"]])
def test_only_haproxy_s_own_ports_and_its_socket_are_closed_to_others(tmp_path: Path, arguments: list[str]) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    arguments = [str(config) if argument == "CONFIG" else argument for argument in arguments]
    env = {
        **os.environ,
        "RETRIEVAL_HAPROXY": "/bin/echo",
        "RAY_SERVE_HAPROXY_METRICS_PORT": "9101",
        "RAY_SERVE_HAPROXY_STATS_PORT": "8404",
    }
    for _ in range(2):  # Ray writes the file anew for each start, and may start twice from one
        done = subprocess.run([ingress._WRAPPER, *arguments], env=env, check=True, capture_output=True, text=True)
        assert done.stdout.split() == arguments, "HAProxy is started as Ray wants it"
        binds = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
        here = [f"bind unix@{tmp_path}/{name}.sock mode 600" for name in "ms"]
        assert binds == [here[0], "bind *:8000", here[1]]
        assert "mode 600" in config.read_text()


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError):
            free_port(taken.getsockname()[1])
    assert all(20000 <= free_port(host=host) < 30000 for host in ("127.0.0.1", "::1"))
    assert len({free_port() for _ in range(8)}) > 1, "two who ask at once are not sent to one door"
