"""The version of the saved configs of this plugin: 0, as none of them has changed."""

from __future__ import annotations

from rastervision.pipeline.upgrade import Upgraders

__all__ = ["UPGRADERS"]

UPGRADERS = Upgraders(version=0)
