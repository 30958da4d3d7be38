"""Run a Python module again if it fails: ``python -m rastervision.aws_sagemaker.attempts 3 MODULE ARGUMENT...``.

A SageMaker pipeline tries steps again only if SageMaker itself fails, not if the program does.
"""

from __future__ import annotations

import logging
import subprocess
import sys

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(attempts: int, module: str, args: list[str]) -> int:
    """Run a module until it succeeds, so many times at most; return its exit code."""
    for attempt in range(1, attempts + 1):
        returncode = subprocess.run([sys.executable, "-m", module, *args], check=False).returncode
        if returncode == 0:
            break
        log.warning("attempt %d of %d ended with exit code %d", attempt, attempts, returncode)
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
