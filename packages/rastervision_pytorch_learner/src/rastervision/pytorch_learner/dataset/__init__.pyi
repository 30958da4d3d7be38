from rastervision.pytorch_learner.box_list import BoxList as BoxList

from .augmentors import AUGMENTORS as AUGMENTORS
from .augmentors import MinMaxNormalize as MinMaxNormalize
from .classification_dataset import ClassificationDataReader as ClassificationDataReader
from .classification_dataset import ClassificationImageDataset as ClassificationImageDataset
from .classification_dataset import ClassificationRandomWindowGeoDataset as ClassificationRandomWindowGeoDataset
from .classification_dataset import (
    ClassificationSlidingWindowGeoDataset as ClassificationSlidingWindowGeoDataset,
)
from .classification_dataset import make_cc_geodataset as make_cc_geodataset
from .dataset import AlbumentationsDataset as AlbumentationsDataset
from .dataset import GeoDataset as GeoDataset
from .dataset import ImageDataset as ImageDataset
from .dataset import TransformedDataset as TransformedDataset
from .dataset import describe_item as describe_item
from .image_folder import DatasetError as DatasetError
from .image_folder import GeoDatasetError as GeoDatasetError
from .image_folder import ImageDatasetError as ImageDatasetError
from .image_folder import discover_images as discover_images
from .image_folder import load_image as load_image
from .image_folder import make_image_folder_dataset as make_image_folder_dataset
from .object_detection_dataset import CocoDataset as CocoDataset
from .object_detection_dataset import ObjectDetectionImageDataset as ObjectDetectionImageDataset
from .object_detection_dataset import (
    ObjectDetectionRandomWindowGeoDataset as ObjectDetectionRandomWindowGeoDataset,
)
from .object_detection_dataset import (
    ObjectDetectionSlidingWindowGeoDataset as ObjectDetectionSlidingWindowGeoDataset,
)
from .object_detection_dataset import make_od_geodataset as make_od_geodataset
from .random_window import RandomWindowGeoDataset as RandomWindowGeoDataset
from .regression_dataset import RegressionDataReader as RegressionDataReader
from .regression_dataset import RegressionImageDataset as RegressionImageDataset
from .regression_dataset import RegressionRandomWindowGeoDataset as RegressionRandomWindowGeoDataset
from .regression_dataset import RegressionSlidingWindowGeoDataset as RegressionSlidingWindowGeoDataset
from .saved_transforms import deserialize_albumentation_transform as deserialize_albumentation_transform
from .semantic_segmentation_dataset import SemanticSegmentationDataReader as SemanticSegmentationDataReader
from .semantic_segmentation_dataset import (
    SemanticSegmentationImageDataset as SemanticSegmentationImageDataset,
)
from .semantic_segmentation_dataset import (
    SemanticSegmentationRandomWindowGeoDataset as SemanticSegmentationRandomWindowGeoDataset,
)
from .semantic_segmentation_dataset import (
    SemanticSegmentationSlidingWindowGeoDataset as SemanticSegmentationSlidingWindowGeoDataset,
)
from .semantic_segmentation_dataset import make_ss_geodataset as make_ss_geodataset
from .sliding_window import SlidingWindowGeoDataset as SlidingWindowGeoDataset
from .transform import TransformType as TransformType
from .transform import albu_to_yxyx as albu_to_yxyx
from .transform import apply_transform as apply_transform
from .transform import build_augmentors as build_augmentors
from .transform import classification_transformer as classification_transformer
from .transform import object_detection_transformer as object_detection_transformer
from .transform import regression_transformer as regression_transformer
from .transform import resize_transform as resize_transform
from .transform import semantic_segmentation_transformer as semantic_segmentation_transformer
from .transform import transform_sample as transform_sample
from .transform import xywh_to_albu as xywh_to_albu
from .transform import yxyx_to_albu as yxyx_to_albu
from .visualizer import ClassificationVisualizer as ClassificationVisualizer
from .visualizer import ObjectDetectionVisualizer as ObjectDetectionVisualizer
from .visualizer import RegressionVisualizer as RegressionVisualizer
from .visualizer import SemanticSegmentationVisualizer as SemanticSegmentationVisualizer
from .visualizer import Visualizer as Visualizer
