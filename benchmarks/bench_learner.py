"""Training and its data: start-up to the first batch, an epoch, windows of a scene through a data loader, chips.

    python benchmarks/bench_learner.py [FAMILY]... [--python OTHER/bin/python]... [--repeat 3] [--sizes N...]

`ours` uses names of the public API only, so it can be measured in an environment with an older release too; `limit` is
the same work written by hand on rasterio, numpy and torch. The limit of an epoch trains on chips that are in memory;
that of windows has labels that were rasterised before the clock runs; that of chips encodes PNG with OpenCV where it is
installed, else with Pillow. All is done in one process but where a name ends in the number of a data loader's workers.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from harness import CACHE, Clock, Family, main, warm

HERE = Path(__file__).parent
CHIP, BATCH, VALID, READS = 256, 8, 8, 768
MODEL = "resnet18_fcn"


def chips(n: int) -> Path:
    """Return a folder with ``n`` chips for training and a few for validation, as the chip command writes them."""

    def write(path: Path) -> None:
        from PIL import Image

        x = np.arange(2048, dtype=np.float32)
        fields = np.stack([np.sin(x / (50 + 31 * b)) * np.sin(x[:, None] / (80 + 23 * b)) for b in range(4)])
        rng = np.random.default_rng(n)
        for split, count in (("train", n), ("valid", VALID)):
            for kind in ("img", "labels"):
                (path / split / kind).mkdir(parents=True)
            for i in range(count):
                y0, x0 = rng.integers(0, 2048 - CHIP, 2)
                part = fields[:, y0 : y0 + CHIP, x0 : x0 + CHIP]
                pixels = 128 + 90 * part[:3] + rng.integers(-12, 13, part[:3].shape)
                pixels = np.moveaxis(pixels.clip(0, 255).astype(np.uint8), 0, -1)
                Image.fromarray(pixels).save(path / split / "img" / f"{i}.png")
                Image.fromarray(part.argmax(0).astype(np.uint8)).save(path / split / "labels" / f"{i}.png")

    return inputs._once(f"chips_{n}", write)


def learner_of(n: int, out: str, workers: int = 0, model: str | None = MODEL) -> Any:
    """Return a learner through the public API; its model is the default one if none is given."""
    from rastervision.core.data import ClassConfig
    from rastervision.pytorch_learner import (
        ExternalModuleConfig,
        SemanticSegmentationImageDataConfig,
        SemanticSegmentationLearner,
        SemanticSegmentationLearnerConfig,
        SemanticSegmentationModelConfig,
        SolverConfig,
    )

    module = ExternalModuleConfig(uri=str(HERE / MODEL), name=MODEL, entrypoint=MODEL) if model else None
    config = SemanticSegmentationLearnerConfig(
        data=SemanticSegmentationImageDataConfig(
            uri=str(chips(n)),
            img_sz=CHIP,
            img_channels=3,
            num_workers=workers,
            class_config=ClassConfig(names=inputs.CLASSES, colors=inputs.COLORS, null_class="null"),
        ),
        model=SemanticSegmentationModelConfig(external_def=module, pretrained=False),
        solver=SolverConfig(batch_sz=BATCH, num_epochs=1, lr=1e-4),
        output_uri=out,
        log_tensorboard=False,
    )
    return SemanticSegmentationLearner(config, tmp_dir=out, training=True)


# from the start of the interpreter to the first batch of training


def start_ours(clock: Clock, n: int) -> list[int]:
    chips(n)
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        with clock.timed():
            x, y = next(iter(learner_of(n, tmp, model=None).train_dl))
        return [*x.shape, *y.shape]


def start_limit(clock: Clock, n: int) -> list[int]:
    folder = chips(n) / "train"
    with clock.timed():
        import torch
        from PIL import Image
        from torch.utils.data import DataLoader, Dataset
        from torchvision.models.segmentation import deeplabv3_resnet50

        class Chips(Dataset[Any]):
            def __init__(self) -> None:
                self.names = sorted(os.listdir(folder / "img"))

            def __len__(self) -> int:
                return len(self.names)

            def __getitem__(self, i: int) -> Any:
                pixels = np.array(Image.open(folder / "img" / self.names[i]))
                label = np.array(Image.open(folder / "labels" / self.names[i]))
                return torch.from_numpy(pixels).movedim(-1, 0) / 255, torch.from_numpy(label).long()

        model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5)
        torch.optim.Adam(model.parameters())
        x, y = next(iter(DataLoader(Chips(), BATCH, shuffle=True)))
    return [*x.shape, *y.shape]


# an epoch of training


def epoch_ours(clock: Clock, n: int, workers: int = 0) -> int:
    import torch

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        learner = learner_of(n, tmp, workers)
        with clock.timed():
            learner.train_epoch(learner.opt, learner.train_dl, learner.step_scheduler)
    return n


def epoch_limit(clock: Clock, n: int) -> int:
    import torch
    from PIL import Image
    from torch.nn import functional as F

    sys.path.insert(0, str(HERE / MODEL))
    from hubconf import resnet18_fcn

    def load(kind: str) -> torch.Tensor:
        paths = sorted((chips(n) / "train" / kind).iterdir(), key=lambda p: p.stem)
        return torch.from_numpy(np.stack([np.array(Image.open(p)) for p in paths]))

    images, labels = load("img").movedim(-1, 1).contiguous(), load("labels")
    torch.manual_seed(0)
    model = resnet18_fcn().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    with clock.timed():
        for picks in torch.randperm(n).split(BATCH):
            x, y = images[picks], labels[picks]
            turns = int(torch.randint(4, ()))
            x, y = x.rot90(turns, (2, 3)), y.rot90(turns, (1, 2))
            if torch.rand(()) < 0.5:
                x, y = x.flip(3), y.flip(2)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.float().div_(255)), y.long())
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    return n


# windows of a scene with labels from GeoJSON


def windows_ours(clock: Clock, size: int, random: bool = False, workers: int = 0) -> list[float]:
    import torch
    from torch.utils.data import DataLoader

    from rastervision.core.data import ClassConfig, ClassInferenceTransformer
    from rastervision.core.data.utils import make_ss_scene
    from rastervision.pytorch_learner import (
        SemanticSegmentationRandomWindowGeoDataset,
        SemanticSegmentationSlidingWindowGeoDataset,
    )

    path, labels = warm(inputs.raster(size)), warm(inputs.polygons(5000, size))
    classes = ClassConfig(names=inputs.CLASSES, colors=inputs.COLORS, null_class="null")
    torch.manual_seed(0)
    infer = ClassInferenceTransformer(default_class_id=None, class_config=classes)
    scene = make_ss_scene(
        str(path),
        label_vector_uri=str(labels),
        class_config=classes,
        label_vector_source_kw={"vector_transformers": [infer]},
        label_raster_source_kw={"background_class_id": 0},
    )
    ds: Any
    if random:
        ds = SemanticSegmentationRandomWindowGeoDataset(
            scene, size_lims=(CHIP, CHIP + 1), out_size=CHIP, max_windows=READS, padding=0
        )
    else:
        ds = SemanticSegmentationSlidingWindowGeoDataset(scene, size=CHIP, stride=CHIP)
    found = _iterate(clock, DataLoader(ds, batch_size=BATCH, num_workers=workers))
    return [len(ds)] if random else found


def windows_limit(clock: Clock, size: int, random: bool = False, workers: int = 0) -> list[float]:
    import rasterio
    import torch
    from rasterio.features import rasterize
    from torch.utils.data import DataLoader, Dataset

    path, polygons = warm(inputs.raster(size)), inputs.polygons(5000, size)
    geoms, ids = inputs.polygons_in_pixels(polygons)
    labels = rasterize(zip(geoms, ids.tolist(), strict=True), out_shape=(size, size), fill=0, dtype="uint8")
    corners = [(y, x) for y in range(0, size, CHIP) for x in range(0, size, CHIP)]
    if random:
        corners = np.random.default_rng(0).integers(0, size - CHIP, (READS, 2)).tolist()

    class Windows(Dataset[Any]):
        src: Any = None

        def __len__(self) -> int:
            return len(corners)

        def __getitem__(self, i: int) -> Any:
            self.src = self.src or rasterio.open(path)
            y, x = corners[i]
            pixels = self.src.read(window=((y, y + CHIP), (x, x + CHIP)))
            label = labels[y : y + CHIP, x : x + CHIP].astype(np.int64)
            return torch.from_numpy(np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)), torch.from_numpy(label)

    found = _iterate(clock, DataLoader(Windows(), batch_size=BATCH, num_workers=workers))
    return [len(corners)] if random else found


def _iterate(clock: Clock, loader: Any) -> list[float]:
    pixels = labels = 0.0
    with clock.timed():
        for x, y in loader:
            pixels += float(x[:, :, ::41, ::37].sum())
            labels += float(y[:, ::41, ::37].sum())
    return [pixels, labels]


def windows_in(size: int, random: bool = False) -> int:
    return READS if random else (size // CHIP) ** 2


# the chip command


def chip_ours(clock: Clock, size: int) -> int:
    from rastervision.core.data import (
        ClassConfig,
        ClassInferenceTransformerConfig,
        DatasetConfig,
        GeoJSONVectorSourceConfig,
        RasterioSourceConfig,
        RasterizedSourceConfig,
        RasterizerConfig,
        SceneConfig,
        SemanticSegmentationLabelSourceConfig,
    )
    from rastervision.core.rv_pipeline import (
        SemanticSegmentationChipOptions,
        SemanticSegmentationConfig,
        WindowSamplingConfig,
    )
    from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
    from rastervision.pytorch_learner import (
        SemanticSegmentationImageDataConfig,
        SemanticSegmentationModelConfig,
        SolverConfig,
    )

    path, polygons = warm(inputs.raster(size)), warm(inputs.polygons(2000, size))
    vectors = GeoJSONVectorSourceConfig(
        uris=str(polygons), transformers=[ClassInferenceTransformerConfig(default_class_id=None)]
    )
    rasterized = RasterizedSourceConfig(
        vector_source=vectors, rasterizer_config=RasterizerConfig(background_class_id=0)
    )
    scene = SceneConfig(
        id="scene",
        raster_source=RasterioSourceConfig(uris=[str(path)], channel_order=[0, 1, 2]),
        label_source=SemanticSegmentationLabelSourceConfig(raster_source=rasterized),
    )
    classes = ClassConfig(names=inputs.CLASSES, colors=inputs.COLORS, null_class="null")
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        config = SemanticSegmentationConfig(
            root_uri=tmp,
            dataset=DatasetConfig(class_config=classes, train_scenes=[scene], validation_scenes=[]),
            backend=PyTorchSemanticSegmentationConfig(
                data=SemanticSegmentationImageDataConfig(img_sz=CHIP, num_workers=0),
                model=SemanticSegmentationModelConfig(pretrained=False),
                solver=SolverConfig(batch_sz=BATCH),
            ),
            chip_options=SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=CHIP, stride=CHIP)),
        )
        config.update()
        config.recursive_validate_config()
        (Path(tmp) / "tmp").mkdir()
        pipeline = config.build(str(Path(tmp) / "tmp"))
        with clock.timed():
            pipeline.chip()
        return _images_in(next(Path(tmp).glob("chip/*.zip")))


def chip_limit(clock: Clock, size: int) -> int:
    import geopandas  # noqa: F401
    import pyogrio  # noqa: F401
    import rasterio
    from rasterio.features import rasterize

    path, polygons = warm(inputs.raster(size)), warm(inputs.polygons(2000, size))
    encode = _png_encoder()
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        out = Path(tmp) / "chips.zip"
        with clock.timed(), rasterio.open(path) as src, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            geoms, ids = inputs.polygons_in_pixels(polygons)
            labels = rasterize(zip(geoms, ids.tolist(), strict=True), out_shape=(size, size), fill=0, dtype="uint8")
            for y in range(0, size, CHIP):
                for x in range(0, size, CHIP):
                    pixels = np.moveaxis(src.read(window=((y, y + CHIP), (x, x + CHIP))), 0, -1)
                    if pixels.any():
                        archive.writestr(f"train/img/{y}-{x}.png", encode(pixels))
                        archive.writestr(f"train/labels/{y}-{x}.png", encode(labels[y : y + CHIP, x : x + CHIP]))
        return _images_in(out)


def _png_encoder() -> Any:
    try:
        import cv2
    except ImportError:
        from PIL import Image

        def encode(pixels: Any) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "png", compress_level=1)
            return buffer.getvalue()

        return encode
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return lambda pixels: cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)[1].tobytes()


def _images_in(path: Path) -> int:
    return sum("/img/" in name for name in zipfile.ZipFile(path).namelist())


def _windows(least: float, random: bool, workers: int) -> Family:
    return Family(
        (2048, 4096, 8192),
        lambda clock, size: windows_ours(clock, size, random, workers),
        lambda clock, size: windows_limit(clock, size, random, workers),
        lambda size: windows_in(size, random),
        "chips",
        least,
    )


CHIPS = (100, 200, 400)
FAMILIES = {
    "start": Family((50, 200, 800), start_ours, start_limit, lambda _: 1, "starts", 0.7),
    "epoch": Family(CHIPS, epoch_ours, epoch_limit, lambda n: n, "chips", 0.95),
    "epoch-2": Family(CHIPS, lambda clock, n: epoch_ours(clock, n, 2), epoch_limit, lambda n: n, "chips", 0.95),
    "sliding": _windows(0.7, random=False, workers=0),
    "sliding-2": _windows(0.7, random=False, workers=2),
    "random": _windows(0.7, random=True, workers=0),
    "random-2": _windows(0.7, random=True, workers=2),
    "chip": Family((2048, 4096, 8192), chip_ours, chip_limit, lambda size: (size // CHIP) ** 2, "chips", 1.0),
}

if __name__ == "__main__":
    main(__doc__, FAMILIES)
