"""Processes that the tests share, because starting one takes longer than most tests."""

import pytest

from boundlab import Pool


@pytest.fixture(scope="session")
def crew():
    with Pool(workers=2).open() as engine:
        yield engine
