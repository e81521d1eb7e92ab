"""Processes that the tests share, because starting one takes longer than most tests."""

import secrets

import pytest

from boundlab import Pool, Ray


@pytest.fixture(scope="session")
def crew():
    with Pool(workers=2).open() as engine:
        yield engine


@pytest.fixture(scope="session")
def ray():
    """The package, with a secret of its own for this session; else Ray would write one into the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")


@pytest.fixture(scope="module")
def ray_engine(ray):
    with Ray(workers=2).open() as engine:
        yield engine
