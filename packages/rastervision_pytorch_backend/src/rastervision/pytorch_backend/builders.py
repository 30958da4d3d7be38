"""Keys that older releases had for the backends."""

from __future__ import annotations

from rastervision.pipeline.builder_keys import Builders

__all__ = ["BUILDERS"]

BUILDERS = Builders(
    aliases={
        "backend": {
            f"pytorch_{task}": f"pytorch_{task}_backend"
            for task in ("chip_classification", "chip_regression", "object_detection", "semantic_segmentation")
        },
    },
)
