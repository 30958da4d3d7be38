from .augmentors import AUGMENTORS as AUGMENTORS
from .augmentors import MinMaxNormalize as MinMaxNormalize
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
from .random_window import RandomWindowGeoDataset as RandomWindowGeoDataset
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
from .transform import build_augmentors as build_augmentors
from .transform import deserialize_albumentation_transform as deserialize_albumentation_transform
from .transform import resize_transform as resize_transform
from .transform import transform_sample as transform_sample
from .visualizer import SemanticSegmentationVisualizer as SemanticSegmentationVisualizer
from .visualizer import Visualizer as Visualizer
