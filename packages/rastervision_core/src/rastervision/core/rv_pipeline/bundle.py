"""Pack what predicting new imagery needs into one zip file.

The zip holds ``pipeline-config.json``, the backend's files (``model-bundle.zip``) and ``analyze/`` with
statistics.
Next: `rastervision.core.predictor`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from typing import TYPE_CHECKING

from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.errors import NotReadableError, RunError

if TYPE_CHECKING:
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["make_bundle"]

log = logging.getLogger(__name__)


def make_bundle(config: RVPipelineConfig, tmp_dir: str) -> None:
    """Write the bundle of a pipeline to its ``bundle_uri``, if that is set, as a whole or not at all.

    Raises:
        RunError: A file that training should have written is missing.
    """
    from rastervision.pipeline.file_system import (
        download_or_copy,
        file_exists,
        sync_from_dir,
        upload_or_copy,
        zipdir,
    )

    if not config.bundle_uri:
        return
    uri = config.get_model_bundle_uri()
    os.makedirs(tmp_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tmp_dir, prefix="bundle-") as work_dir:
        content = os.path.join(work_dir, "content")
        os.makedirs(content)
        train_uri = (config.train_uri or "").rstrip("/")
        for name in config.backend.get_bundle_filenames():
            try:
                download_or_copy(f"{train_uri}/{name}", content)
            except (NotReadableError, FileNotFoundError) as e:
                raise RunError(f"Cannot bundle: {train_uri}/{name} cannot be read. Run the train command first.") from e
        if config.analyze_uri and file_exists(config.analyze_uri, include_dir=True):
            sync_from_dir(config.analyze_uri, os.path.join(content, "analyze"))
        _add_named_stats(config, content)
        save_pipeline_config(config.copy(), os.path.join(content, "pipeline-config.json"))
        zip_path = os.path.join(work_dir, os.path.basename(uri))
        zipdir(content, zip_path)
        upload_or_copy(zip_path, uri)
    log.info("wrote %s", uri)


def _add_named_stats(config: RVPipelineConfig, content: str) -> None:
    """Put statistics that the first validation scene takes from a file of its own where a predictor looks."""
    from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
    from rastervision.core.rv_pipeline.rv_pipeline import find_configs
    from rastervision.pipeline.file_system import download_if_needed, file_exists, upload_or_copy

    template = [s.raster_source for s in config.dataset.validation_scenes[:1]]
    for transformer in find_configs(template, StatsTransformerConfig):
        source_uri = transformer.stats_uri
        in_bundle = transformer.copy()
        in_bundle.update_root(content)
        if source_uri and file_exists(source_uri, include_dir=False):
            upload_or_copy(download_if_needed(source_uri), in_bundle.stats_uri)
