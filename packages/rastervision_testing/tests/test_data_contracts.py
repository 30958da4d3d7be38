"""The contracts let small plugins pass, and say of broken ones what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabels,
    ClassConfig,
    CRSTransformer,
    IdentityCRSTransformer,
    Labels,
    LabelSource,
    LabelStore,
    RasterSource,
    Scene,
)
from rastervision.core.evaluation import ChipClassificationEvaluator
from rastervision.pipeline.errors import NotReadableError
from rastervision.pipeline.file_system import str_to_file
from rastervision.testing import numbered_image
from rastervision.testing.contracts import (
    EvaluatorContract,
    LabelSourceContract,
    LabelStoreContract,
    RasterSourceContract,
)

CLASSES = ClassConfig(names=["a", "b", "c"])


def fails(message: str) -> Any:
    return pytest.raises(AssertionError, match=re.compile(message, re.DOTALL))


# -- raster sources ------------------------------------------------------------------------------------------------


class MemorySource(RasterSource):
    """An image in memory."""

    def __init__(self, image: Any, bbox: Box | None = None, **kwargs: Any) -> None:
        self.image = image
        kwargs.setdefault("channel_order", None)
        whole = Box(0, 0, *image.shape[:2])
        super().__init__(num_channels_raw=image.shape[2], dtype_raw=image.dtype, bbox=bbox or whole, **kwargs)

    @property
    def crs_transformer(self) -> CRSTransformer:
        return IdentityCRSTransformer()

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        window = window.to_global_coords(self.bbox)
        inner = window.intersection(self.bbox).intersection(Box(0, 0, *self.image.shape[:2]))
        chip = np.zeros((*window.size, self.num_channels_raw), self.dtype_raw)
        if inner.area:
            chip[inner.to_local_coords(window).to_slices()] = self.image[inner.to_slices()]
        return self.resize(chip, out_shape)


class TestMemorySource(RasterSourceContract):
    @pytest.fixture
    def image(self) -> Any:
        return numbered_image(20, 24, 3, np.uint16)

    @pytest.fixture
    def make_source(self, image: Any) -> Any:
        return lambda **kwargs: MemorySource(image, **kwargs)


class IgnoresBbox(MemorySource):
    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        return super()._get_chip(window.to_local_coords(self.bbox), out_shape)


class CutsWindows(MemorySource):
    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        return super()._get_chip(window.intersection(self.extent), out_shape)


class SharesChips(MemorySource):
    def __init__(self, image: Any, **kwargs: Any) -> None:
        super().__init__(image, **kwargs)
        self.chips: dict[Any, Any] = {}

    def get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        key = window, out_shape
        if key not in self.chips:
            self.chips[key] = super().get_chip(window, out_shape)
        return self.chips[key]


class ChangesType(MemorySource):
    def get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        return super().get_chip(window, out_shape).astype(np.float64)


class CannotBePickled(MemorySource):
    def __init__(self, image: Any, **kwargs: Any) -> None:
        super().__init__(image, **kwargs)
        self.read = lambda window: image[window.to_slices()]


class ForgetsOutShape(MemorySource):
    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        return super()._get_chip(window)


@pytest.mark.parametrize(
    ("cls", "test", "args", "message"),
    [
        (IgnoresBbox, "test_slices_are_relative_to_the_bbox", (), r"with bbox Box.*source\[:\] is wrong"),
        (CutsWindows, "test_windows_beyond_the_extent_are_filled_up", ((5, 6),), r"the chip of Box.*shape"),
        (SharesChips, "test_chips_are_the_callers_own", (), "read after an earlier one was changed is wrong"),
        (
            ChangesType,
            "test_chips_have_the_shape_and_the_type_promised",
            (Box(0, 0, 4, 4),),
            r"the chip of Box.* is float64, but source\.dtype is int32",
        ),
        (ForgetsOutShape, "test_out_shape_resamples", ((8, 4),), r"out_shape=\(8, 4\) gives a chip of the shape"),
    ],
)
def test_a_broken_raster_source_is_told_what_is_wrong(cls: Any, test: str, args: Any, message: str) -> None:
    image = numbered_image(20, 24, 3)

    with fails(message):
        getattr(RasterSourceContract(), test)(lambda **kwargs: cls(image, **kwargs), image, *args)


def test_a_raster_source_that_cannot_be_pickled_fails() -> None:
    image = numbered_image(20, 24, 3)

    with pytest.raises(Exception, match="pickle"):
        RasterSourceContract().test_survives_pickling(lambda **kwargs: CannotBePickled(image, **kwargs), image)


def test_a_mask_that_takes_zeros_for_nodata_fails() -> None:
    class GuessesMask(MemorySource):
        def get_valid_mask(self, window: Box) -> Any:
            return (self.get_chip(window) != 0).any(axis=2)

    image, valid = numbered_image(20, 24, 3), np.ones((20, 24), bool)
    image[3:6, 3:6] = image[10:, 10:] = 0
    valid[10:, 10:] = False

    with fails("the mask of Box.* is wrong"):
        RasterSourceContract().test_pixels_without_data_are_zero_and_told_from_zeros((GuessesMask(image), valid))


# -- label sources -------------------------------------------------------------------------------------------------


class GridSource(LabelSource):
    """Cells of 8 x 8 pixels, whose classes are known from a table."""

    def __init__(self, table: Any, bbox: Box | None = None) -> None:
        self.table = table
        self._bbox = Box(0, 0, 8 * table.shape[0], 8 * table.shape[1]) if bbox is None else bbox

    @property
    def bbox(self) -> Box:
        return self._bbox

    def set_bbox(self, bbox: Box) -> None:
        self._bbox = bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        return IdentityCRSTransformer()

    def _class_of(self, cell: Box) -> int:
        return int(self.table[cell.ymin // 8, cell.xmin // 8])

    def get_labels(self, window: Box | None = None) -> Labels:
        windows = self.extent.get_windows(8, 8, padding=0) if window is None else [window]
        cells = [w.to_global_coords(self.bbox) for w in windows]
        return ChipClassificationLabels({c: (self._class_of(c), None) for c in cells})

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, Box):
            return super().__getitem__(key)
        return self._class_of(key.to_global_coords(self.bbox))


TABLE = np.arange(12).reshape(3, 4) % 3


class TestGridSource(LabelSourceContract):
    part = Box(8, 8, 24, 24)

    @pytest.fixture
    def make_source(self) -> Any:
        return lambda bbox=None: GridSource(TABLE, bbox)

    @pytest.fixture
    def known(self) -> Any:
        return [(Box(0, 0, 8, 8), 0), (Box(8, 16, 16, 24), 0), (Box(16, 8, 24, 16), 0), (Box(8, 8, 16, 16), 2)]


def test_a_broken_label_source_is_told_what_is_wrong() -> None:
    class Global(GridSource):
        def __getitem__(self, key: Any) -> Any:
            return self._class_of(key)

    class KeepsFirst(GridSource):
        first: Any = None

        def get_labels(self, window: Box | None = None) -> Labels:
            self.first = self.first or super().get_labels(window)
            return self.first

    class Contract(LabelSourceContract):
        part = Box(8, 8, 24, 24)

    def make_global(bbox: Box | None = None) -> LabelSource:
        return Global(TABLE, bbox)

    def make_keeping(bbox: Box | None = None) -> LabelSource:
        return KeepsFirst(TABLE, bbox)

    known = [(Box(8, 8, 16, 16), 2), (Box(16, 16, 24, 24), 1)]
    with fails(r"with bbox Box.*source\[Box.*\] is 0, expected 2"):
        Contract().test_windows_are_relative_to_the_bbox(make_global, known)
    with fails(r"get_labels\(\) after reading windows is ChipClassificationLabels\(1 cells\), expected .*12 cells"):
        Contract().test_the_labels_of_the_scene_do_not_depend_on_windows_read_before(make_keeping, known)


# -- label stores --------------------------------------------------------------------------------------------------


class TableStore(LabelStore):
    """A line of text per cell."""

    def __init__(self, uri: str, bbox: Box | None = None) -> None:
        self.uri, self._bbox = uri, bbox

    @property
    def bbox(self) -> Box | None:
        return self._bbox

    def set_bbox(self, bbox: Box) -> None:
        self._bbox = bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        return IdentityCRSTransformer()

    def lines(self, labels: Any) -> Any:
        for cell in sorted(labels.get_cells(), key=tuple):
            name = CLASSES.get_name(labels[cell].class_id)
            yield json.dumps([*cell, name]) + "\n"

    def save(self, labels: Any) -> None:
        str_to_file("".join(self.lines(labels)), self.uri)

    def get_labels(self) -> Labels:
        path = Path(self.uri)
        if not path.exists():
            raise NotReadableError(f"There is no prediction at {self.uri}.")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return ChipClassificationLabels({Box(*r[:4]): (CLASSES.get_class_id(r[4]), None) for r in rows})


def cells(n: int, reverse: bool = False) -> ChipClassificationLabels:
    items = [(Box(0, 8 * i, 8, 8 * i + 8), (i % 3, None)) for i in range(n)]
    return ChipClassificationLabels(dict(reversed(items) if reverse else items))


def bad_cells() -> ChipClassificationLabels:
    return cells(4) + ChipClassificationLabels({Box(90, 90, 98, 98): (9, None)})


class TestTableStore(LabelStoreContract):
    @pytest.fixture
    def make_store(self) -> Any:
        return lambda folder, bbox=None: TableStore(f"{folder}/cells.txt", bbox)

    @pytest.fixture
    def labels(self) -> Any:
        return cells(5)

    @pytest.fixture
    def other_labels(self) -> Any:
        return cells(3) + ChipClassificationLabels({Box(8, 0, 16, 8): (1, None)})

    @pytest.fixture
    def empty_labels(self) -> Any:
        return cells(0)

    @pytest.fixture
    def reordered_labels(self) -> Any:
        return cells(5, reverse=True)

    @pytest.fixture
    def failing_labels(self) -> Any:
        return bad_cells()


class AddsUp(TableStore):
    def save(self, labels: Any) -> None:
        Path(self.uri).parent.mkdir(exist_ok=True)
        with open(self.uri, "a") as f:
            f.writelines(self.lines(labels))


class WritesAsItGoes(TableStore):
    def save(self, labels: Any) -> None:
        Path(self.uri).parent.mkdir(exist_ok=True)
        with open(self.uri, "w") as f:
            f.writelines(self.lines(labels))


class LeavesParts(TableStore):
    def save(self, labels: Any) -> None:
        path = Path(f"{self.uri}.part")
        path.parent.mkdir(exist_ok=True)
        path.touch()
        super().save(labels)
        path.unlink()


def maker(cls: Callable[..., LabelStore]) -> Any:
    return lambda folder, bbox=None: cls(f"{folder}/cells.txt", bbox)


def test_a_broken_label_store_is_told_what_is_wrong(tmp_path: Path) -> None:
    contract = LabelStoreContract()

    with fails("what comes back of a second save is ChipClassificationLabels.*5 cells.*expected.*2 cells"):
        contract.test_saving_again_replaces_everything(maker(AddsUp), cells(5), cells(2), tmp_path / "a")
    with fails(r"after a save that failed, these files have other bytes than expected: cells\.txt"):
        contract.test_a_save_that_fails_leaves_the_old_prediction(
            maker(WritesAsItGoes), cells(5), bad_cells(), tmp_path / "b"
        )
    with fails(r"after a first save that failed, there are files that should not be there: cells\.txt\.part"):
        contract.test_a_first_save_that_fails_leaves_nothing(maker(LeavesParts), bad_cells(), tmp_path / "c")


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()


# -- evaluators ----------------------------------------------------------------------------------------------------


class TestSmallEvaluator(EvaluatorContract):
    """An evaluator that is there already, on the label source and the store above."""

    evaluator_cls: Any = ChipClassificationEvaluator

    @pytest.fixture
    def make_evaluator(self) -> Any:
        return lambda folder: self.evaluator_cls(CLASSES, str(folder / "eval.json"))

    @pytest.fixture
    def make_scene(self, tmp_path: Path) -> Any:
        return scene_maker(tmp_path)

    @pytest.fixture
    def known(self) -> Any:
        return {"a": {"precision": 0.75, "recall": 0.75}, "b": {"pred_count": 4, "gt_count": 4, "recall": 0.75}}


def scene_maker(tmp_path: Path) -> Any:
    def make(scene_id: str, case: str, aois: Any = ()) -> Scene:
        size = (4, 4) if case == "empty" else (24, 32)  # no cell fits into the small one
        store = TableStore(str(tmp_path / "predictions" / scene_id))
        scene = Scene(scene_id, MemorySource(np.ones((*size, 1), np.uint8)), GridSource(TABLE), store, aois)
        labels = scene.label_source.get_labels()  # type: ignore[union-attr]
        assert isinstance(labels, ChipClassificationLabels)
        if case == "known":  # two cells change places
            first, second = list(labels.get_cells())[:2]
            labels = labels + ChipClassificationLabels({first: (1, None), second: (0, None)})
        if case != "missing":
            store.save(labels)
        return scene

    return make


def test_a_broken_evaluator_is_told_what_is_wrong(tmp_path: Path) -> None:
    class WritesNaN(ChipClassificationEvaluator):
        def process(self, scenes: Any, tmp_dir: str | None = None) -> None:
            str_to_file('{"overall": [NaN], "per_scene": {}}', str(self.output_uri))

    class SkipsMissing(ChipClassificationEvaluator):
        def process(self, scenes: Any, tmp_dir: str | None = None) -> None:
            super().process([s for s in scenes if Path(s.label_store.uri).exists()])

    class KeepsTheLast(ChipClassificationEvaluator):
        def process(self, scenes: Any, tmp_dir: str | None = None) -> None:
            super().process(list(scenes)[-1:])

    contract, make_scene = EvaluatorContract(), scene_maker(tmp_path)

    def making(cls: Any) -> Any:
        return lambda folder: cls(CLASSES, str(folder / "eval.json"))

    with fails(r"eval\.json has NaN, which is no JSON"):
        contract.test_a_perfect_prediction_scores_one(making(WritesNaN), make_scene, tmp_path / "a")
    with pytest.raises(pytest.fail.Exception, match=r"DID NOT RAISE .*NotReadableError"):
        contract.test_a_missing_prediction_is_an_error_that_names_the_scene(
            making(SkipsMissing), make_scene, tmp_path / "b"
        )
    with fails("the evaluation of the scenes a, b, c differs from that of c, b, a"):
        contract.test_the_order_of_scenes_does_not_matter(making(KeepsTheLast), make_scene, tmp_path / "c")
