"""Ports for what a test starts."""

from __future__ import annotations

from serve.ingress import free_port


def free_ports(count: int) -> list[int]:
    """So many, each another, that nobody listens on now."""
    ports: dict[int, None] = {}
    while len(ports) < count:
        ports[free_port()] = None
    return [*ports]
