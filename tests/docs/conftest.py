"""What pages and notebooks may change while they run, put back afterwards."""

from __future__ import annotations

import pytest


@pytest.fixture
def own_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators and rules that a page registers are gone after it."""
    from boundlab.ops import op
    monkeypatch.setattr(op, "REGISTRY", dict(op.REGISTRY))
    monkeypatch.setattr(op, "RULES", dict(op.RULES))
