from .utils import get_scene_info as get_scene_info
from .utils import save_image_crop as save_image_crop
