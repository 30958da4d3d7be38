from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from torch.utils.data import DataLoader

from rastervision.pipeline.errors import NotReadableError
from rastervision.pytorch_learner import (
    ImageDatasetError,
    SemanticSegmentationDataReader,
    SemanticSegmentationImageDataset,
    discover_images,
    load_image,
    make_image_folder_dataset,
)
from rastervision.pytorch_learner.dataset.transform import resize_transform


def zipped(folder: Path, path: Path) -> str:
    shutil.make_archive(str(path.with_suffix("")), "zip", folder)
    return f"{path}!"


def test_reads_each_kind_of_image(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (5, 4, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", rgb.astype(np.uint16))
    with rasterio.open(
        tmp_path / "c.tif", "w", driver="GTiff", width=4, height=5, count=3, dtype="uint8", crs="EPSG:4326",
        transform=rasterio.Affine(0.5, 0, 9, 0, -0.5, 9),
    ) as dst:  # fmt: skip
        dst.write(np.moveaxis(rgb, -1, 0))
    Image.fromarray(rgb[..., 0]).save(tmp_path / "d.png")
    root = zipped(tmp_path, tmp_path.parent / "images.zip")

    for folder in (str(tmp_path), root):
        images = [load_image(os.path.join(folder, n)) for n in ("a.png", "b.npy", "c.tif", "d.png")]
        for image in images[:3]:
            np.testing.assert_array_equal(image, rgb)
        np.testing.assert_array_equal(images[3], rgb[..., 0])
        assert all(i.flags.writeable for i in images)


def test_images_without_georeference_are_silent(tmp_path: Path) -> None:
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8"),
    ):
        pass

    assert load_image(tmp_path / "a.tif").shape == (2, 2, 1)


def test_damaged_images_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "a.npy", "a.tif"):
        (tmp_path / name).write_bytes(b"not an image")
        with pytest.raises(NotReadableError, match=f"{name} cannot be read as an image"):
            load_image(tmp_path / name)
    root = zipped(tmp_path, tmp_path.parent / "bad.zip")
    with pytest.raises(NotReadableError, match=r"missing.png"):
        load_image(f"{root}/missing.png")


def test_discovers_images_sorted_and_below(tmp_path: Path) -> None:
    for name in ("b/x.PNG", "a.jpg", "notes.txt", "c.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    root = zipped(tmp_path, tmp_path.parent / "found.zip")

    for folder in (str(tmp_path), root):
        found = [p.as_posix().removeprefix(f"{folder}/") for p in discover_images(folder)]
        assert found == ["a.jpg", "b/x.PNG", "c.npy"]
    assert [p.name for p in discover_images(f"{root}/b")] == ["x.PNG"]
    with pytest.raises(ImageDatasetError, match="no folder of images"):
        discover_images(tmp_path / "nowhere")


def test_zip_members_give_the_same_samples_as_files(chips_dir: Path, tmp_path: Path) -> None:
    root = zipped(chips_dir, tmp_path / "chips.zip")
    files = SemanticSegmentationImageDataset(str(chips_dir / "train/img"), str(chips_dir / "train/labels"))
    members = SemanticSegmentationImageDataset(f"{root}/train/img", f"{root}/train/labels")

    assert len(files) == len(members) == 6
    for i in range(6):
        for a, b in zip(files[i], members[i], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_zip_members_are_read_by_worker_processes(chips_dir: Path, tmp_path: Path, method: str) -> None:
    root = zipped(chips_dir, tmp_path / "chips.zip")
    ds = SemanticSegmentationImageDataset(f"{root}/train/img", f"{root}/train/labels")
    expected = [ds[i][0] for i in range(len(ds))]

    loader = DataLoader(ds, batch_size=None, num_workers=1, multiprocessing_context=method)

    for (x, _), y in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_zip_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    values = []
    for value in (1, 2):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("x.npy", "w") as file:
            np.save(file, np.full(3, value))
        os.utime(tmp_path / "a.zip", (value, value))
        values.append(load_image(tmp_path / "a.zip!" / "x.npy")[0])

    assert values == [1, 2]


def test_images_and_labels_must_pair_up(chips_dir: Path) -> None:
    (chips_dir / "train/labels/3.png").rename(chips_dir / "train/labels/33.png")

    with pytest.raises(ImageDatasetError, match=r"6 images .* 6 labels.*do not pair up by name \(such as 3, 33"):
        SemanticSegmentationDataReader(str(chips_dir / "train/img"), str(chips_dir / "train/labels"))


def test_gray_images_get_a_channel_and_labels_lose_theirs(tmp_path: Path) -> None:
    for name, array in {"img": np.zeros((4, 4), np.uint8), "labels": np.ones((4, 4, 1), np.uint8)}.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", array)

    x, y = SemanticSegmentationDataReader(str(tmp_path / "img"), str(tmp_path / "labels"))[0]

    assert (x.shape, y.shape) == ((4, 4, 1), (4, 4))


def test_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / name / "0.png")
    (tmp_path / "empty").mkdir()

    ds = make_image_folder_dataset(str(tmp_path), classes=["dog", "eel", "empty", "cat"])

    assert sorted(y for _, y in ds) == [0, 3]
    assert [y for _, y in make_image_folder_dataset(str(tmp_path / ".."), [tmp_path.name])] == [0, 0]
    with pytest.raises(ImageDatasetError, match="no images"):
        make_image_folder_dataset(str(tmp_path), classes=["eel"])


def test_label_images_of_16_bits_keep_their_class_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 255], [256, 65535]], np.uint16)
    for folder, image in (("img", np.zeros((2, 2), np.uint8)), ("labels", ids)):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a.png")

    _, y = SemanticSegmentationImageDataset(
        str(tmp_path / "img"), str(tmp_path / "labels"), transform=resize_transform(4)
    )[0]

    assert y[::2, ::2].tolist() == ids.tolist()
