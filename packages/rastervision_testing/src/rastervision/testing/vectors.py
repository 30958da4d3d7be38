"""Small GeoJSON files, and masks to vectorise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = ["masks", "write_geojson"]


def write_geojson(
    path: str | os.PathLike[str],
    geoms: Sequence[BaseGeometry],
    properties: Sequence[dict[str, Any]] | None = None,
    *,
    crs: str | None = None,
) -> Path:
    """Write a GeoJSON feature collection and return its path.

    Args:
        path: Where to; the folder is made if need be.
        geoms: Geometries, in longitude and latitude unless ``crs`` is given.
        properties: Properties of each feature.
        crs: Name of a CRS for a ``crs`` member, such as "urn:ogc:def:crs:EPSG::32617".
    """
    from shapely.geometry import mapping

    properties = [{} for _ in geoms] if properties is None else properties
    features = [
        {"type": "Feature", "id": i, "properties": p, "geometry": mapping(g)}
        for i, (g, p) in enumerate(zip(geoms, properties, strict=True))
    ]
    geojson: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs is not None:
        geojson["crs"] = {"type": "name", "properties": {"name": crs}}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(geojson))
    return path


@st.composite
def masks(draw: st.DrawFn, max_side: int = 24) -> NDArray[np.uint8]:
    """Draw (H, W) uint8 masks of 0 and 1 with a random share of 1s, smooth or speckled."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1, 1, 2, 4]))
    coarse = rng.random((-(-height // scale), -(-width // scale))) < draw(st.sampled_from([0.3, 0.5, 0.6, 0.8]))
    return np.kron(coarse, np.ones((scale, scale)))[:height, :width].astype(np.uint8)
