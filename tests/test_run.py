"""The run of the tests itself."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("together")
def test_what_is_marked_to_run_in_one_process_does(request: pytest.FixtureRequest) -> None:
    """Else everything that takes long to set up is set up in each: pytest-xdist 3.8 does not see it in pytest 9.2."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("only under -n and --dist loadgroup")
    assert request.node.nodeid.endswith("@together")
