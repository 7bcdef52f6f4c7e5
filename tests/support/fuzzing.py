"""The OpenAPI document taken at its word: every operation asked with what it says it takes, and with what it does not.

A status that the document does not name is wrong, and so are a body of another form, and 500 whatever it says.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
_NO_HTTP = b"Invalid HTTP request received."
"""What the parser of HTTP says before the service hears of it."""
DECLARED = (503, 504)
"""Failures of a server that are an answer: full, and too late."""


@dataclass(slots=True)
class Report:
    """statuses: (operation, status) -> how often. wrong: what was found, one sentence each."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def num(self) -> int:
        return self.statuses.total()


def fuzz(address: str, examples: int, photos: Sequence[bytes], seed: int = 0, timeout_s: float = 60.0) -> Report:
    """Ask every operation `examples` times.

    Args: photos: real ones; every third body of bytes is one of them, or one with some bytes changed.
    """
    report, rng = Report(), random.Random(seed)
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        name = f"{operation.method.upper()} {operation.path}"
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        for mode, num in zip(modes, (-(-2 * examples // 3), examples // 3), strict=True):
            if num:
                _ask(operation, mode, name, num, photos, rng, address, timeout_s, report)
    return report


def _ask(
    operation: Any,
    mode: Any,
    name: str,
    num: int,
    photos: Sequence[bytes],
    rng: random.Random,
    address: str,
    timeout_s: float,
    report: Report,
) -> None:
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=num,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
    )
    def one(case: Any) -> None:
        if isinstance(case.body, bytes) and photos and rng.random() < 1 / 3:
            case.body = _photo(photos, rng)
        try:
            response = case.call(base_url=address, timeout=timeout_s)
        except (requests.Timeout, requests.ConnectionError) as error:
            report.wrong.append(f"{name}: no answer ({type(error).__name__})")
            return
        if response.content == _NO_HTTP:
            return
        report.statuses[name, response.status_code] += 1
        checks = CHECKS if response.status_code in DECLARED else [*CHECKS, not_a_server_error]
        try:
            case.validate_response(response, checks=checks)
        except (AssertionError, BaseExceptionGroup) as error:
            parts: Sequence[BaseException] = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
            report.wrong += [
                f"{name}: {response.status_code}: {_line(part)} {response.content[:200]!r}" for part in parts
            ]

    # An operation that takes nothing can be told nothing that it does not take.
    with contextlib.suppress(Unsatisfiable):
        one()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _photo(photos: Sequence[bytes], rng: random.Random) -> bytes:
    photo = bytearray(rng.choice(photos))
    for _ in range(rng.choice((0, 0, 1, 20))):
        photo[rng.randrange(len(photo))] = rng.randrange(256)
    return bytes(photo[: rng.choice((len(photo), len(photo), rng.randrange(len(photo))))])
