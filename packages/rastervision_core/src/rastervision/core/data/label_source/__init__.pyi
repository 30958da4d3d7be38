from .label_source import LabelSource as LabelSource
from .label_source import LabelSourceConfig as LabelSourceConfig
from .semantic_segmentation_label_source import (
    SemanticSegmentationLabelSource as SemanticSegmentationLabelSource,
)
from .semantic_segmentation_label_source import (
    SemanticSegmentationLabelSourceConfig as SemanticSegmentationLabelSourceConfig,
)
