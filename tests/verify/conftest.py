"""Processes that several modules of tests use, since they take seconds to start."""

import pytest

from boundlab.verify.team import Team


@pytest.fixture(scope="session")
def team():
    """This process and another."""
    with Team(("cpu",)) as found:
        found.start(wait=True)
        yield found
