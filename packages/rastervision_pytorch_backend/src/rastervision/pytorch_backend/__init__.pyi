from .learner_config.classification import ClassificationDataConfig as ClassificationDataConfig
from .learner_config.classification import ClassificationDataFormat as ClassificationDataFormat
from .learner_config.classification import ClassificationGeoDataConfig as ClassificationGeoDataConfig
from .learner_config.classification import ClassificationImageDataConfig as ClassificationImageDataConfig
from .learner_config.classification import ClassificationLearnerConfig as ClassificationLearnerConfig
from .learner_config.classification import ClassificationModelConfig as ClassificationModelConfig
from .learner_config.data import DataConfig as DataConfig
from .learner_config.data import augmentors as augmentors
from .learner_config.data import default_augmentors as default_augmentors
from .learner_config.geo_data import GeoDataConfig as GeoDataConfig
from .learner_config.image_data import ImageDataConfig as ImageDataConfig
from .learner_config.learner import LearnerConfig as LearnerConfig
from .learner_config.model import Backbone as Backbone
from .learner_config.model import ExternalModuleConfig as ExternalModuleConfig
from .learner_config.model import ModelConfig as ModelConfig
from .learner_config.object_detection import ObjectDetectionDataConfig as ObjectDetectionDataConfig
from .learner_config.object_detection import ObjectDetectionDataFormat as ObjectDetectionDataFormat
from .learner_config.object_detection import ObjectDetectionGeoDataConfig as ObjectDetectionGeoDataConfig
from .learner_config.object_detection import ObjectDetectionImageDataConfig as ObjectDetectionImageDataConfig
from .learner_config.object_detection import ObjectDetectionLearnerConfig as ObjectDetectionLearnerConfig
from .learner_config.object_detection import ObjectDetectionModelConfig as ObjectDetectionModelConfig
from .learner_config.optimizer import LRScheduleConfig as LRScheduleConfig
from .learner_config.optimizer import OptimizerConfig as OptimizerConfig
from .learner_config.plot_options import ChannelInds as ChannelInds
from .learner_config.plot_options import PlotOptions as PlotOptions
from .learner_config.plot_options import RGBTuple as RGBTuple
from .learner_config.plot_options import (
    get_default_channel_display_groups as get_default_channel_display_groups,
)
from .learner_config.plot_options import validate_channel_display_groups as validate_channel_display_groups
from .learner_config.regression import RegressionDataConfig as RegressionDataConfig
from .learner_config.regression import RegressionDataFormat as RegressionDataFormat
from .learner_config.regression import RegressionGeoDataConfig as RegressionGeoDataConfig
from .learner_config.regression import RegressionImageDataConfig as RegressionImageDataConfig
from .learner_config.regression import RegressionLearnerConfig as RegressionLearnerConfig
from .learner_config.regression import RegressionModelConfig as RegressionModelConfig
from .learner_config.regression import RegressionPlotOptions as RegressionPlotOptions
from .learner_config.semantic_segmentation import (
    SemanticSegmentationDataConfig as SemanticSegmentationDataConfig,
)
from .learner_config.semantic_segmentation import (
    SemanticSegmentationDataFormat as SemanticSegmentationDataFormat,
)
from .learner_config.semantic_segmentation import (
    SemanticSegmentationGeoDataConfig as SemanticSegmentationGeoDataConfig,
)
from .learner_config.semantic_segmentation import (
    SemanticSegmentationImageDataConfig as SemanticSegmentationImageDataConfig,
)
from .learner_config.semantic_segmentation import (
    SemanticSegmentationLearnerConfig as SemanticSegmentationLearnerConfig,
)
from .learner_config.semantic_segmentation import (
    SemanticSegmentationModelConfig as SemanticSegmentationModelConfig,
)
from .learner_config.solver import SolverConfig as SolverConfig
from .pytorch_chip_classification import PyTorchChipClassification as PyTorchChipClassification
from .pytorch_chip_classification import PyTorchChipClassificationConfig as PyTorchChipClassificationConfig
from .pytorch_chip_classification import (
    PyTorchChipClassificationSampleWriter as PyTorchChipClassificationSampleWriter,
)
from .pytorch_chip_regression import PyTorchChipRegression as PyTorchChipRegression
from .pytorch_chip_regression import PyTorchChipRegressionConfig as PyTorchChipRegressionConfig
from .pytorch_chip_regression import PyTorchChipRegressionSampleWriter as PyTorchChipRegressionSampleWriter
from .pytorch_learner_backend import PyTorchLearnerBackend as PyTorchLearnerBackend
from .pytorch_learner_backend import PyTorchLearnerBackendConfig as PyTorchLearnerBackendConfig
from .pytorch_learner_backend import PyTorchLearnerSampleWriter as PyTorchLearnerSampleWriter
from .pytorch_object_detection import PyTorchObjectDetection as PyTorchObjectDetection
from .pytorch_object_detection import PyTorchObjectDetectionConfig as PyTorchObjectDetectionConfig
from .pytorch_object_detection import (
    PyTorchObjectDetectionSampleWriter as PyTorchObjectDetectionSampleWriter,
)
from .pytorch_semantic_segmentation import PyTorchSemanticSegmentation as PyTorchSemanticSegmentation
from .pytorch_semantic_segmentation import (
    PyTorchSemanticSegmentationConfig as PyTorchSemanticSegmentationConfig,
)
from .pytorch_semantic_segmentation import (
    PyTorchSemanticSegmentationSampleWriter as PyTorchSemanticSegmentationSampleWriter,
)
from .utils import chip_collate_fn_cc as chip_collate_fn_cc
from .utils import chip_collate_fn_od as chip_collate_fn_od
from .utils import chip_collate_fn_ss as chip_collate_fn_ss
