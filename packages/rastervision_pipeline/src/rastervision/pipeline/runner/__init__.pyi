from .inprocess_runner import INPROCESS as INPROCESS
from .inprocess_runner import InProcessRunner as InProcessRunner
from .local_runner import LOCAL as LOCAL
from .local_runner import LocalRunner as LocalRunner
from .runner import Runner as Runner
