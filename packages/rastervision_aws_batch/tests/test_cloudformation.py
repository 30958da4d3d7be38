from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent / "cloudformation" / "batch.yml"
CFN_LINT = shutil.which("cfn-lint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.mark.skipif(CFN_LINT is None, reason="needs cfn-lint")
def test_the_template_is_valid() -> None:
    done = subprocess.run([str(CFN_LINT), str(TEMPLATE)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_outputs_are_the_settings() -> None:
    outputs = TEMPLATE.read_text().partition("\nOutputs:\n")[2]

    found = re.findall(r"Description: (\w+)", outputs)
    assert found == ["cpu_job_queue", "gpu_job_queue", "cpu_job_def", "gpu_job_def"]
