from .backend import Backend as Backend
from .backend import BackendConfig as BackendConfig
from .backend import SampleWriter as SampleWriter
