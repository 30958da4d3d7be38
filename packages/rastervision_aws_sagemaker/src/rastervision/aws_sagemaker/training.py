"""What starts training in a container for PyTorch: a script in an archive, and what its toolkit is told."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "PYTORCH_ESTIMATOR_SCRIPT_FILENAME",
    "PYTORCH_ESTIMATOR_SCRIPT_TEMPLATE",
    "PYTORCH_ESTIMATOR_TAR_FILENAME",
    "archive_uri",
    "check_train_uri",
    "hyperparameters",
    "script_archive",
    "train_script",
]

PYTORCH_ESTIMATOR_SCRIPT_FILENAME = "train.py"
PYTORCH_ESTIMATOR_TAR_FILENAME = "train.tar.gz"
PYTORCH_ESTIMATOR_SCRIPT_TEMPLATE = '''\
"""Run the command train in each of the processes that torchrun has started."""

import os

from rastervision.pipeline.cli import _main

if __name__ == "__main__":
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        print(f"{{name}}={{os.environ.get(name)}}", flush=True)
    _main({args})
'''
_TMP_DIR = "/opt/data/tmp/rv"


def train_script(cli_args: Sequence[str], tmp_dir: str = _TMP_DIR) -> str:
    """Return the script that runs the command line with some arguments."""
    return PYTORCH_ESTIMATOR_SCRIPT_TEMPLATE.format(args=json.dumps(["--tmpdir", tmp_dir, *cli_args]))


def script_archive(script: str) -> bytes:
    """Return an archive with the script; the same bytes each time."""
    import gzip

    content = script.encode()
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w") as tar:
        member = tarfile.TarInfo(PYTORCH_ESTIMATOR_SCRIPT_FILENAME)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return gzip.compress(tar_bytes.getvalue(), mtime=0)


def check_train_uri(train_uri: str | None) -> str:
    """Return the URI without a slash at its end; raise `ConfigError` if SageMaker cannot read from there."""
    if not train_uri or not train_uri.startswith("s3://"):
        raise ConfigError(
            f"train_uri is {train_uri}, but SageMaker reads from and writes to S3 only. Set root_uri or train_uri to "
            "an s3:// URI."
        )
    return train_uri.rstrip("/")


def archive_uri(train_uri: str) -> str:
    """Return where the archive with the script is put."""
    return f"{check_train_uri(train_uri)}/{PYTORCH_ESTIMATOR_TAR_FILENAME}"


def hyperparameters(train_uri: str, region: str, instance_type: str, job_name: str) -> dict[str, str]:
    """Return what the training toolkit in the container reads: which script to run, on all GPUs of all machines."""
    values = {
        "sagemaker_program": PYTORCH_ESTIMATOR_SCRIPT_FILENAME,
        "sagemaker_submit_directory": archive_uri(train_uri),
        "sagemaker_torch_distributed_enabled": True,
        "sagemaker_instance_type": instance_type,
        "sagemaker_container_log_level": 20,
        "sagemaker_job_name": job_name,
        "sagemaker_region": region,
    }
    return {name: json.dumps(value) for name, value in values.items()}
