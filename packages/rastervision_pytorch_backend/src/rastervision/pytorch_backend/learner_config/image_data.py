"""Training data as image files: chips that the chip command wrote, or folders and zips of the user."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from rastervision.core.utils.types import NonNegInt, Proportion
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.data import DATA_MODULE, DataConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN

if TYPE_CHECKING:
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["ImageDataConfig"]


@register_config("image_data", plugin=PLUGIN)
class ImageDataConfig(DataConfig):
    """Configure data sets that are read from image files."""

    data_format: str | None = Field(None, description="Layout of the files; each task has one.")
    uri: str | list[str] | None = Field(
        None,
        description="Where the chips are: a zip file, a list of zip files, a folder of zips, or a folder "
        "with the subfolders train and valid. The pipeline's chip_uri if not given.",
    )
    group_uris: list[str | list[str]] | None = Field(
        None, description="Several uris, of which different numbers of training chips may be used."
    )
    group_train_sz: NonNegInt | list[NonNegInt] | None = Field(
        None,
        description="Number of training chips to use of each group: one number for all, or one per group.",
    )
    group_train_sz_rel: Proportion | list[Proportion] | None = Field(
        None,
        description="Fraction of the training chips to use of each group: one for all, or one per group.",
    )

    @model_validator(mode="after")
    def _group_options_fit(self) -> Self:
        sizes = [n for n in ("group_train_sz", "group_train_sz_rel") if getattr(self, n) is not None]
        if len(sizes) == 2:
            raise ConfigError("group_train_sz and group_train_sz_rel exclude each other. Set only one.")
        for name in sizes:
            value = getattr(self, name)
            if self.group_uris is None:
                raise ConfigError(f"{name} is set but group_uris is not. Set group_uris, or use {name[6:]}.")
            if isinstance(value, list) and len(value) != len(self.group_uris):
                raise ConfigError(
                    f"{name} has {len(value)} items but group_uris has {len(self.group_uris)}. "
                    "Give one number for all groups, or one for each."
                )
        return self

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the chips as read by train."""
        if command == "train":
            for uri in self.group_uris if self.group_uris is not None else [self.uri]:
                for one in uri if isinstance(uri, list) else [uri]:
                    io_def.add_input(one, "file" if one is not None and one.lower().endswith(".zip") else "dir")
        super().report_io(command, io_def)

    def get_group_train_sizes(self) -> list[tuple[int | None, float | None]]:
        """Return for each group how many training chips to use: a number or None, a fraction or None.

        Without ``group_uris``, ``uri`` is the only group and ``train_sz`` or ``train_sz_rel`` its size.
        """
        if self.group_uris is None:
            return [(self.train_sz, self.train_sz_rel)]
        count = len(self.group_uris)
        size, fraction = self.group_train_sz, self.group_train_sz_rel
        sizes = size if isinstance(size, list) else [size] * count
        fractions = fraction if isinstance(fraction, list) else [fraction] * count
        return list(zip(sizes, fractions, strict=True))

    def get_data_dirs(self, uri: str | list[str], unzip_dir: str) -> list[str]:
        """Return the local folders that hold the chips at ``uri``, with ``train``, ``valid`` or ``test``.

        Args:
            uri: As the field ``uri``.
            unzip_dir: Local folder; zip files are unpacked below it.

        Raises:
            NotReadableError: There is nothing of this kind at ``uri``.
        """
        from rastervision.pipeline.file_system.utils import (
            file_exists,
            get_local_path,
            list_paths,
            sync_from_dir,
        )

        if isinstance(uri, list):
            return self.unzip_data(uri, unzip_dir)
        if uri.endswith(".zip"):
            return self.unzip_data([uri], unzip_dir)
        if file_exists(uri, include_dir=True):
            zip_uris = sorted(list_paths(uri, ext="zip"))
            if zip_uris:
                return self.unzip_data(zip_uris, unzip_dir)
            local = get_local_path(uri, unzip_dir)
            if local != uri:
                sync_from_dir(uri, local)
            if any(Path(local, split).is_dir() for split in ("train", "valid")):
                return [local]
        raise NotReadableError(
            f"There are no chips at {uri}: neither zip files nor folders train and valid. "
            "Run the chip command first, or correct data.uri."
        )

    def unzip_data(self, zip_uris: list[str], unzip_dir: str) -> list[str]:
        """Unpack each zip file to a folder of its own below ``unzip_dir`` and return the folders.

        Raises:
            NotReadableError: A file is missing or is not a zip file.
        """
        from rastervision.pipeline.file_system.utils import download_if_needed, file_exists, unzip

        root = Path(unzip_dir, "data", str(uuid.uuid4()))
        out = []
        for i, zip_uri in enumerate(zip_uris):
            if not file_exists(zip_uri, include_dir=False):
                raise NotReadableError(f"{zip_uri} does not exist. Run the chip command first, or correct data.uri.")
            target = root / str(i)
            target.mkdir(parents=True)
            unzip(download_if_needed(zip_uri, unzip_dir), str(target))
            out.append(str(target))
        return out

    def dir_to_dataset(self, data_dir: str, transform: Any) -> Any:
        """Build the data set of a folder of one split, such as ``<dir>/train``."""
        return load_object(f"{DATA_MODULE}:dir_to_dataset")(self, data_dir, transform)
