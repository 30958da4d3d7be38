from .experiment_set import ExperimentSet as ExperimentSet
from .registry import Registry as Registry
from .registry import registry_ as registry_
from .rv_config import RVConfig as RVConfig
from .rv_config import rv_config_ as rv_config_
from .verbosity import Verbosity as Verbosity
from .version import __version__ as __version__
