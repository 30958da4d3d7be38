from .inprocess_runner import INPROCESS as INPROCESS
from .inprocess_runner import InProcessRunner as InProcessRunner
from .local_runner import LOCAL as LOCAL
from .local_runner import LocalRunner as LocalRunner
from .makefile import make_makefile_entry_for_cmd as make_makefile_entry_for_cmd
from .makefile import make_run_cmd_invocation as make_run_cmd_invocation
from .runner import Runner as Runner
