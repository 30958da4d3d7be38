from .label_store import LabelStore as LabelStore
from .label_store import LabelStoreConfig as LabelStoreConfig
from .semantic_segmentation_label_store import (
    SemanticSegmentationLabelStore as SemanticSegmentationLabelStore,
)
from .semantic_segmentation_label_store import (
    SemanticSegmentationLabelStoreConfig as SemanticSegmentationLabelStoreConfig,
)
from .vector_output import BuildingVectorOutputConfig as BuildingVectorOutputConfig
from .vector_output import PolygonVectorOutputConfig as PolygonVectorOutputConfig
from .vector_output import VectorOutputConfig as VectorOutputConfig
