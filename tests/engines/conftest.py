"""Processes that the tests share, because starting one takes longer than most tests."""

import pytest

from boundlab import Pool, Ray


@pytest.fixture(scope="session")
def crew():
    with Pool(workers=2).open() as engine:
        yield engine


@pytest.fixture(scope="module")
def ray_engine():
    pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
    with Ray(workers=2).open() as engine:
        yield engine
