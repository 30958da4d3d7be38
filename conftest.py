"""Settings of all tests."""

import atexit
import contextlib
import os
import tempfile

with contextlib.suppress(ImportError):  # the session `client` runs without hypothesis
    from hypothesis import settings

    # examples differ in size by orders of magnitude: how long one takes says nothing
    settings.register_profile("no-deadline", deadline=None)
    settings.load_profile("no-deadline")

# tests neither read the settings of who runs them nor leave anything there
_settings_dir = tempfile.TemporaryDirectory(prefix="rv-tests-")
atexit.register(_settings_dir.cleanup)
os.environ["RV_CONFIG_DIR"] = _settings_dir.name
