"""Runs in Weights & Biases: offline, in the train folder, unless ``$WANDB_MODE`` is ``online``.

``wandb sync <train folder>/wandb/offline-run-*`` uploads them. ``$WANDB_PROJECT`` names the project.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from rastervision.pipeline.errors import MissingPackageError

__all__ = ["WandbLogger"]

_ID_FILENAME = "wandb-run-id.txt"


class WandbLogger:
    """Logs a run to Weights & Biases."""

    def start(self, config: dict[str, Any], output_dir: str) -> None:
        """Begin a run, or go on with the one that the folder knows."""
        try:
            import wandb
        except ImportError as e:
            raise MissingPackageError(
                "The logger wandb needs wandb. Run: pip install rastervision_pytorch_learner[wandb]"
            ) from e
        folder = Path(output_dir).resolve()
        id_path = folder / _ID_FILENAME
        known = id_path.is_file()
        run_id = id_path.read_text(encoding="utf-8").strip() if known else uuid.uuid4().hex[:8]
        id_path.write_text(run_id, encoding="utf-8")
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "rastervision"),
            name=folder.name,
            id=run_id,
            # files of one run that are offline are put together when they are uploaded
            resume="allow" if known and mode == "online" else None,
            dir=str(folder),
            config=config,
            mode=mode,
        )

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log metrics."""
        self._run.log(metrics, step=step)

    def artifact(self, path: str) -> None:
        """Log a file."""
        self._run.save(path, base_path=os.path.dirname(path), policy="now")

    def finish(self) -> None:
        """End the run."""
        self._run.finish()
