"""How configs that older releases saved become today's: one function per type hint.

Each function takes a saved dict of one version to the next. Version 14 is that of Raster Vision 0.31.
"""

from __future__ import annotations

from rastervision.pipeline.upgrade import Upgraders

__all__ = ["UPGRADERS"]

UPGRADERS = Upgraders(version=14)
