"""How the pixels of a class become polygons in the output of semantic segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rastervision.pipeline.config import Config, register_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.class_config import ClassConfig

__all__ = ["BuildingVectorOutputConfig", "PolygonVectorOutputConfig", "VectorOutputConfig", "vector_file_names"]

_SUFFIXES = {"geojson": "json", "gpkg": "gpkg", "geoparquet": "parquet"}


@register_config("vector_output")
class VectorOutputConfig(Config):
    """Configure the polygons of one class."""

    class_id: int = Field(description="Class to make polygons of.")
    denoise: int = Field(
        8,
        description="Diameter in pixels of the disc that removes specks and spurs (morphological opening); 0: none.",
    )
    threshold: float | None = Field(
        None,
        description="Least score of a pixel; polygons of several classes may then overlap. By default the pixels whose "
        "label is this class.",
    )

    format: Literal["geojson", "gpkg", "geoparquet"] = Field(
        "geojson",
        description="Of the file. GeoJSON is in longitude and latitude; GeoPackage and GeoParquet keep the CRS of the "
        "image, and have the columns class_id and class_name.",
    )

    def get_uri(self, root: str, class_config: ClassConfig | None = None) -> str:
        """Return the URI of the file in a folder."""
        return "/".join(part for part in (root.rstrip("/"), self.get_file_name(class_config)) if part)

    def get_file_name(self, class_config: ClassConfig | None = None) -> str:
        """Return the name of the file: ``class-<id>-<name>``, and a suffix that tells the format."""
        name = f"-{class_config.get_name(self.class_id)}" if class_config is not None else ""
        file_name = f"class-{self.class_id}{name}.{_SUFFIXES[self.format]}"
        return file_name.replace("/", "_").replace("\\", "_")  # a class of somebody's bundle may have any name

    def vectorize(self, mask: NDArray[Any]) -> Iterator[BaseGeometry]:
        """Yield polygons, in pixel coordinates, of a (H, W) mask of the class."""
        raise NotImplementedError

    def _denoised(self, mask: NDArray[Any]) -> NDArray[Any]:
        from rastervision.core.data.utils.vectorization import denoise

        return denoise(mask, self.denoise) if self.denoise else mask


@register_config("polygon_vector_output")
class PolygonVectorOutputConfig(VectorOutputConfig):
    """Make one polygon of each group of pixels that share sides."""

    def vectorize(self, mask: NDArray[Any]) -> Iterator[BaseGeometry]:
        """Yield polygons, in pixel coordinates, of a (H, W) mask of the class."""
        from rastervision.core.data.utils.vectorization import mask_to_polygons

        return mask_to_polygons(self._denoised(mask))


@register_config("building_vector_output")
class BuildingVectorOutputConfig(VectorOutputConfig):
    """Make polygons of buildings, parting those that touch at a narrow neck."""

    min_area: float = Field(0.0, description="Smaller buildings, in pixels, are left out.")
    element_width_factor: float = Field(
        0.5, description="Width of the element that cuts necks, as a share of the building's smaller side."
    )
    element_thickness: float = Field(
        0.001,
        description="Thickness in pixels of the element that cuts necks; at least one pixel is used.",
    )

    def vectorize(self, mask: NDArray[Any]) -> Iterator[BaseGeometry]:
        """Yield polygons, in pixel coordinates, of a (H, W) mask of the class."""
        from rastervision.core.data.utils.vectorization import mask_to_building_polygons

        return mask_to_building_polygons(
            self._denoised(mask),
            min_area=self.min_area,
            width_factor=self.element_width_factor,
            thickness=self.element_thickness,
        )


def vector_file_names(
    outputs: Sequence[VectorOutputConfig], class_config: ClassConfig | None = None
) -> list[tuple[VectorOutputConfig, str]]:
    """Return each output with the name of its file; one whose name is taken by an earlier one gets a number."""
    names: dict[str, VectorOutputConfig] = {}
    for output in outputs:
        name = output.get_file_name(class_config)
        stem, _, suffix = name.rpartition(".")
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}.{suffix}"
        names[name] = output
    return [(output, name) for name, output in names.items()]
