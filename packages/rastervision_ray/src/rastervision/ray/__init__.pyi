from .ray_runner import RAY as RAY
from .ray_runner import RayRunner as RayRunner
from .settings import RaySettings as RaySettings
