"""The data of a learner: datasets and data loaders of the splits, and plots of them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.checkpoint import preserve_rng
from rastervision.pytorch_learner.data import build_dataset, get_base_transform
from rastervision.pytorch_learner.dataset.batch_augmenter import split_augmentation
from rastervision.pytorch_learner.distributed import ShareSampler
from rastervision.pytorch_learner.learner_ranks import LearnerRanks
from rastervision.pytorch_learner.loop import RecordingSampler, describe_batch, has_batch_norm
from rastervision.pytorch_learner.optim import drops_last_batch, steps_per_epoch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from rastervision.pytorch_learner.dataset.visualizer import Visualizer

__all__ = ["LearnerData", "Split"]

log = logging.getLogger(__name__)

_MAX_PREVIEW_CHIPS = 8
_MAX_AUGMENTED_CHIPS = 3

Split = Literal["train", "valid", "test"]


class LearnerData(LearnerRanks):
    """Base of `Learner`: its datasets and data loaders."""

    train_ds: Dataset[Any] | None
    valid_ds: Dataset[Any] | None
    test_ds: Dataset[Any] | None
    train_dl: DataLoader[Any]
    valid_dl: DataLoader[Any] | None
    test_dl: DataLoader[Any] | None
    output_dir_local: str
    augments_on_device: bool | None = None
    """Whether ``data.augmentors`` change batches on the device of the model, not chips in the data loader's processes.

    None stands for: on CUDA. An ``aug_transform`` always runs in the data loader's processes.
    """

    @property
    def _solver(self) -> Any:
        return self.cfg.solver

    @property
    def visualizer(self) -> Visualizer:
        """Plots samples of this task."""
        data, options = self.cfg.data, self.cfg.data.plot_options
        return self.get_visualizer_class()(
            data.class_names or [],
            data.class_colors,
            transform=None if options is None else options.transform,
            channel_display_groups=None if options is None else options.channel_display_groups,
        )

    def get_dataset(self, split: Split) -> Dataset[Any] | None:
        """Return the dataset of a split."""
        return {"train": self.train_ds, "valid": self.valid_ds, "test": self.test_ds}[split]

    def get_dataloader(self, split: Split) -> DataLoader[Any]:
        """Return the data loader of a split.

        Raises:
            ConfigError: The split has no data.
        """
        loader = {"train": self.train_dl, "valid": self.valid_dl, "test": self.test_dl}[split]
        if loader is None:
            raise ConfigError(f"There is no {split} data. Add {split} scenes or chips.")
        return loader

    def _has_data(self, split: Split) -> bool:
        ds = self.get_dataset(split)
        return ds is not None and len(ds) > 0  # type: ignore[arg-type]

    def setup_data(self, distributed: bool | None = None) -> None:
        """Build the datasets that were not given, and the data loaders.

        Args:
            distributed: Whether each process gets its share; whether there are processes if not given.
        """
        given = [ds is not None for ds in (self.train_ds, self.valid_ds, self.test_ds)]
        if self.train_ds is None:
            self.train_ds = self.build_dataset("train")
        if self.valid_ds is None:
            self.valid_ds = self.build_dataset("valid")
        if not any(given):
            self.test_ds = self.build_dataset("test")
        if len(self.train_ds) == 0:  # type: ignore[arg-type]
            raise ConfigError("The training data is empty. Check data.uri, or the scenes and sampling options.")
        if len(self.train_ds) == 1 and has_batch_norm(self.model):  # type: ignore[arg-type]
            raise ConfigError(
                "The training data is a single chip, and the batch norm of this model needs at least two in "
                "a batch. Add chips, or make them smaller."
            )
        self.train_dl, self.valid_dl, self.test_dl = self.build_dataloaders(distributed)

    def build_dataset(self, split: Split) -> Dataset[Any]:
        """Build the dataset of a split."""
        log.info("building the %s data", split)
        return build_dataset(self.cfg.data, split, self.tmp_dir)

    def build_datasets(self) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
        """Build the training, validation and test datasets."""
        return self.build_dataset("train"), self.build_dataset("valid"), self.build_dataset("test")

    def build_sampler(self, ds: Dataset[Any], split: Split, distributed: bool = False) -> Sampler[int]:
        """Return the order of a dataset: random for training, another one in each epoch.

        Args:
            ds: The dataset.
            split: The split that it is of.
            distributed: Whether this process gets only its share.
        """
        size = len(ds)  # type: ignore[arg-type]
        order: Sampler[int]
        if distributed and split == "train":
            # all processes must take the same number of steps: some chips are taken twice
            order = DistributedSampler(ds, self.ddp_world_size, self.ddp_rank)
        elif distributed:
            order = ShareSampler(size, self.ddp_rank, self.ddp_world_size)
        else:
            order = RandomSampler(ds) if split == "train" else SequentialSampler(ds)  # type: ignore[arg-type]
        return RecordingSampler(order)

    def build_dataloader(self, split: Split, distributed: bool | None = None, **kwargs: Any) -> DataLoader[Any]:
        """Build the data loader of a split.

        Args:
            split: The split.
            distributed: Whether this process gets only its share; whether it is one of several if not given.
            **kwargs: Arguments of `DataLoader`.
        """
        ds = self.get_dataset(split)
        assert ds is not None
        shared = self.is_ddp_process if distributed is None else distributed
        sampler = self.build_sampler(ds, split, shared)
        batch_sz = self.batch_sz_of_process(shared)
        args: dict[str, Any] = {
            "batch_size": batch_sz,
            "drop_last": split == "train" and drops_last_batch(len(sampler), batch_sz),  # type: ignore[arg-type]
            "num_workers": min(self.cfg.data.num_workers, os.cpu_count() or 1),
            "pin_memory": self.device.type == "cuda",
            "collate_fn": self.get_collate_fn(),
            **kwargs,
        }
        return DataLoader(ds, **{"sampler": sampler, **args})

    def build_dataloaders(
        self, distributed: bool | None = None
    ) -> tuple[DataLoader[Any], DataLoader[Any] | None, DataLoader[Any] | None]:
        """Build the data loaders; None for a split without data. ``distributed`` as in `build_dataloader`."""
        splits: tuple[Split, Split, Split] = ("train", "valid", "test")
        train, valid, test = (self.build_dataloader(s, distributed) if self._has_data(s) else None for s in splits)
        assert train is not None
        return train, valid, test

    def on_joined(self, rank: int, world_size: int, local_rank: int) -> None:
        """Take this process' share of the data, if there is data already."""
        super().on_joined(rank, world_size, local_rank)
        if hasattr(self, "train_dl"):
            self.train_dl, self.valid_dl, self.test_dl = self.build_dataloaders()

    @property
    def _steps_per_epoch(self) -> int:
        """How often the weights change in an epoch."""
        shared = self.is_ddp_process
        share = self.ddp_world_size if shared else 1
        size = -(-len(self.train_ds) // share)  # type: ignore[arg-type]
        return steps_per_epoch(size, self.batch_sz_of_process(shared), self._solver.accumulate_batches)

    def _batches(self, dl: DataLoader[Any]) -> Iterator[Any]:
        """Yield the batches of a data loader, checked, on the device of the model."""
        for i, batch in enumerate(dl):
            self.check_batch(batch, lambda i=i: describe_batch(dl, i))  # type: ignore[misc]
            yield tuple(self.to_device(part, self.device) for part in batch)

    def _train_batches(self, dl: DataLoader[Any]) -> Iterator[Any]:
        """Yield the batches of a data loader as `_batches`, on a GPU augmented there."""
        on_device = self.device.type == "cuda" if self.augments_on_device is None else self.augments_on_device
        split = split_augmentation(dl) if on_device else None
        if split is None:
            yield from self._batches(dl)
        else:
            plain_dl, augment = split
            for batch in self._batches(plain_dl):
                yield augment(*batch)

    def log_data_stats(self) -> None:
        """Log the sizes of the datasets."""
        for split, ds in (("train", self.train_ds), ("valid", self.valid_ds), ("test", self.test_ds)):
            log.info("%s data: %d chips", split, 0 if ds is None else len(ds))  # type: ignore[arg-type]

    @preserve_rng()
    def plot_predictions(self, split: Split, batch_limit: int | None = None, show: bool = False) -> None:
        """Plot some chips of a split with labels and predictions to ``<split>_preds.png``."""
        x, y = self._preview(split, batch_limit)
        z = self.predict(x)
        path = os.path.join(self.output_dir_local, f"{split}_preds.png")
        self.visualizer.plot_batch(x, y, path, z=z, show=show)

    def plot_dataloader(
        self, dl: DataLoader[Any], output_path: str, batch_limit: int | None = None, show: bool = False
    ) -> None:
        """Plot the first chips of a data loader with their labels."""
        x, y = next(iter(dl))
        self.visualizer.plot_batch(x, y, output_path, batch_limit=batch_limit, show=show)

    @preserve_rng()
    def plot_dataloaders(self, batch_limit: int | None = None, show: bool = False) -> None:
        """Plot some chips of each split with their labels to ``dataloaders/<split>.png``.

        Some training chips without and with augmentation go to ``dataloaders/augmentations.png``.
        """
        folder = os.path.join(self.output_dir_local, "dataloaders")
        splits: tuple[Split, ...] = ("train", "valid", "test")
        for split in splits:
            if self._has_data(split):
                path = os.path.join(folder, f"{split}.png")
                self.visualizer.plot_batch(*self._preview(split, batch_limit), path, show=show)
        self._plot_augmentations(os.path.join(folder, "augmentations.png"), show)

    def _plot_augmentations(self, path: str, show: bool) -> None:
        from rastervision.pytorch_learner.figures import save_figure, show_figure
        from rastervision.pytorch_learner.plots import plot_augmentations

        data = self.cfg.data
        if self.train_ds is None or not (data.augmentors or data.aug_transform):
            return
        fig = plot_augmentations(self.train_ds, get_base_transform(data), self.visualizer, _MAX_AUGMENTED_CHIPS)
        if fig is not None:
            save_figure(fig, path)
            if show:
                show_figure(fig)

    def _preview(self, split: Split, limit: int | None) -> tuple[torch.Tensor, Any]:
        """Return chips from all over a split, read in this process."""
        ds = self.get_dataset(split)
        size = len(ds)  # type: ignore[arg-type]
        count = min(size, self._solver.batch_sz, _MAX_PREVIEW_CHIPS) if limit is None else min(size, limit)
        picks = np.linspace(0, size - 1, max(1, count)).round().astype(int).tolist()
        loader = DataLoader(ds, batch_size=len(picks), sampler=picks, collate_fn=self.get_collate_fn())  # type: ignore[arg-type]
        x, y = next(iter(loader))
        return x, y
