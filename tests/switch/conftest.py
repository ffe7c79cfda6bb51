"""Every test below this folder runs once with each kind of stack: what a fiber sees must not depend on it."""

from __future__ import annotations

import pytest

SWITCHES = ["native", "greenlet"]


@pytest.fixture(params=SWITCHES)
def switch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of stack: for ``swapco.run(main, switch=switch)``, and the default of this test and its programs."""
    name = str(request.param)
    monkeypatch.setenv("SWAPCO_SWITCH", name)
    return name
