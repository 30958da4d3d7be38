"""History of the saved configs of this package, under the two plugin names that they carry."""

from __future__ import annotations

from rastervision.pipeline.upgrade import Upgraders

__all__ = ["BACKEND", "LEARNER"]

BACKEND = Upgraders(version=2)
LEARNER = Upgraders(version=7, renames={"geo_data_window": "window_sampling"})
