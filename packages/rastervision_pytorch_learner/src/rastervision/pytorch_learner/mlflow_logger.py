"""Runs in MLflow: on the server at ``$MLFLOW_TRACKING_URI``, else in files of the train folder.

``$MLFLOW_EXPERIMENT_NAME`` names the experiment. ``mlflow ui --backend-store-uri sqlite:///<train folder>/mlflow.db``
shows the files.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from rastervision.pipeline.errors import MissingPackageError

__all__ = ["MLflowLogger"]

_ID_FILENAME = "mlflow-run-id.txt"
_MAX_PARAM_LENGTH = 500


class MLflowLogger:
    """Logs a run to MLflow."""

    def start(self, config: dict[str, Any], output_dir: str) -> None:
        """Begin a run, or go on with the one that the folder knows."""
        try:
            from mlflow import MlflowClient
        except ImportError as e:
            raise MissingPackageError(
                "The logger mlflow needs mlflow. Run: pip install rastervision_pytorch_learner[mlflow]"
            ) from e
        folder = Path(output_dir).resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder}/mlflow.db")
        id_path = folder / _ID_FILENAME
        if id_path.is_file():
            self._run_id = id_path.read_text(encoding="utf-8").strip()
            self._client.update_run(self._run_id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rastervision")
        experiment = self._client.get_experiment_by_name(name)
        location = None if uri else (folder / "mlflow-artifacts").as_uri()
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name, location)
        self._run_id = self._client.create_run(experiment_id, run_name=folder.name).info.run_id
        id_path.write_text(self._run_id, encoding="utf-8")
        for key, value in _flat(config):
            self._client.log_param(self._run_id, key, str(value)[:_MAX_PARAM_LENGTH])

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log metrics; characters that MLflow does not take in names become ``_``."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(re.sub(r"[^\w\-. /]", "_", k), v, now, step) for k, v in metrics.items()]
        self._client.log_batch(self._run_id, metrics=rows)

    def artifact(self, path: str) -> None:
        """Log a file."""
        self._client.log_artifact(self._run_id, path)

    def finish(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run_id)


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the options of model and solver, and plain ones of the rest, by dotted name."""
    out: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            # scenes are long; the config is an artifact too
            out += _flat(value, f"{prefix}{key}.") if prefix or key in ("model", "solver") else []
        elif not isinstance(value, list) and key not in ("type_hint", "plugin_versions"):
            out.append((prefix + key, value))
    return out
