"""Settings of all tests."""

import contextlib

with contextlib.suppress(ImportError):  # the session `client` runs without hypothesis
    from hypothesis import settings

    # examples differ in size by orders of magnitude: how long one takes says nothing
    settings.register_profile("no-deadline", deadline=None)
    settings.load_profile("no-deadline")
