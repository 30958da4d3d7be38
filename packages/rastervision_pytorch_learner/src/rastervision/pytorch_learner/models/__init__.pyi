from .backbones import RESNETS as RESNETS
from .backbones import backbone_weights as backbone_weights
from .build import build_model as build_model
from .segmentation import build_segmentation_model as build_segmentation_model
