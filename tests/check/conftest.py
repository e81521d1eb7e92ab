"""Most tests of check are about work, not about this machine: they take a made-up speed, which saves its measurement."""

import sys

import pytest

import boundlab  # noqa: F401 (loads the module whose function is replaced)
from boundlab.check.tally import Speed


@pytest.fixture(autouse=True)
def speed(request, monkeypatch):
    if "slow" not in request.keywords:
        made_up = Speed(1e10, 1e10, 1e10, 1e10, 1e9, 1e-6)
        monkeypatch.setattr(sys.modules["boundlab.check.check"], "measure_speed", lambda *_: made_up)
