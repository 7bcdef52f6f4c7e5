"""What tests of preparation share: which decodes a crop was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval.images import preparation
from retrieval.images.pixels import decode


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The reduction of each decode, noted as it happens."""
    seen: list[int] = []

    def noted(data: bytes, **options: Any) -> tuple[np.ndarray, int]:
        pixels, reduction = decode(data, **options)
        seen.append(reduction)
        return pixels, reduction

    monkeypatch.setattr(preparation, "decode", noted)
    return seen
