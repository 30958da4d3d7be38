"""What every label store must do.

Subclass `LabelStoreContract` in a test module, name the class ``Test...``, and override ``make_store``, ``labels`` and
the other fixtures that make labels:

    class TestMyStore(LabelStoreContract):
        @pytest.fixture
        def make_store(self):
            return lambda folder, bbox=None: MyStore(f"{folder}/labels.csv", bbox=bbox)

        @pytest.fixture
        def labels(self):
            return MyLabels(...)

Labels are saved in pixels of the scene's extent. A store that gives them back in pixels of the image overrides
`in_image`.
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer.crs_transformer import CRSTransformer
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing.contracts.compare import check_same, files_below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rastervision.core.data.label import Labels
    from rastervision.core.data.label_store import LabelStore

    MakeStore = Callable[..., LabelStore]

__all__ = ["LabelStoreContract"]


class LabelStoreContract:
    """Checks a store of labels of one task."""

    #: Part of the image that the scene is; labels must fit into it.
    bbox: Box = Box(32, 64, 72, 112)

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """A function of a folder (a `Path`, which need not be there) and ``bbox`` that makes a store."""
        raise NotImplementedError

    @pytest.fixture
    def labels(self) -> Labels:
        """Labels in pixels of the extent of `bbox`."""
        raise NotImplementedError

    @pytest.fixture
    def other_labels(self) -> Labels:
        """Labels of the same scene that have something which ``labels`` lack, and lack something which they have."""
        raise NotImplementedError

    @pytest.fixture
    def empty_labels(self) -> Labels:
        """Labels of the same scene that know nothing."""
        raise NotImplementedError

    @pytest.fixture
    def reordered_labels(self) -> Labels:
        """The same as ``labels``, put together in another order."""
        pytest.skip("the labels have no order")

    @pytest.fixture
    def failing_labels(self) -> Labels:
        """Labels of the same scene that cannot be saved, such as ones with an unknown class near their end."""
        pytest.skip("the store is given no labels that cannot be saved")

    def in_image(self, labels: Labels, bbox: Box) -> Labels:
        """Return labels of a scene as its store gives them back; the same by default."""
        return labels

    def check_labels(self, actual: Labels, expected: Labels, what: str) -> None:
        """Raise `AssertionError` if labels differ; override it for a store that rounds."""
        check_same(actual, expected, what)

    def test_labels_come_back(self, make_store: MakeStore, labels: Labels, tmp_path: Path) -> None:
        make_store(tmp_path / "out", bbox=self.bbox).save(labels)

        back = make_store(tmp_path / "out", bbox=self.bbox).get_labels()

        assert type(back) is type(labels), f"a {type(labels).__name__} comes back as a {type(back).__name__}"
        self.check_labels(back, self.in_image(labels, self.bbox), "what comes back")

    def test_the_bbox_can_be_set_after_the_store_is_made(
        self, make_store: MakeStore, labels: Labels, tmp_path: Path
    ) -> None:
        make_store(tmp_path / "one", bbox=self.bbox).save(labels)
        store = make_store(tmp_path / "two")

        store.set_bbox(self.bbox)
        store.save(labels)

        assert store.bbox == self.bbox, f"bbox is {store.bbox} after set_bbox({self.bbox})"
        self.check_labels(store.get_labels(), self.in_image(labels, self.bbox), "what comes back after set_bbox")
        _check_files(tmp_path / "two", files_below(tmp_path / "one"), "with the bbox set later,")

    def test_says_where_it_lies_on_the_map(self, make_store: MakeStore, tmp_path: Path) -> None:
        transformer = make_store(tmp_path / "out", bbox=self.bbox).crs_transformer

        assert isinstance(transformer, CRSTransformer), f"crs_transformer is a {type(transformer).__name__}"

    def test_no_labels_come_back_as_no_labels(
        self, make_store: MakeStore, empty_labels: Labels, tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)

        store.save(empty_labels)

        self.check_labels(store.get_labels(), self.in_image(empty_labels, self.bbox), "what comes back of no labels")

    # -- again and again -------------------------------------------------------------------------------------------

    def test_saving_again_replaces_everything(
        self, make_store: MakeStore, labels: Labels, other_labels: Labels, tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)
        make_store(tmp_path / "fresh", bbox=self.bbox).save(other_labels)

        store.save(labels)
        store.save(other_labels)

        self.check_labels(
            store.get_labels(), self.in_image(other_labels, self.bbox), "what comes back of a second save"
        )
        _check_files(tmp_path / "out", files_below(tmp_path / "fresh"), "after a second save,")

    def test_an_empty_prediction_replaces_an_earlier_one(
        self, make_store: MakeStore, labels: Labels, empty_labels: Labels, tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)
        make_store(tmp_path / "fresh", bbox=self.bbox).save(empty_labels)

        store.save(labels)
        store.save(empty_labels)

        _check_files(tmp_path / "out", files_below(tmp_path / "fresh"), "after saving no labels,")

    def test_the_same_labels_give_the_same_bytes(self, make_store: MakeStore, labels: Labels, tmp_path: Path) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)
        store.save(labels)
        before = files_below(tmp_path / "out")
        assert before, f"the store has written nothing into {tmp_path / 'out'}"

        store.save(labels)

        _check_files(tmp_path / "out", before, "after saving the same labels twice,")

    def test_the_bytes_do_not_depend_on_the_order_of_labels(
        self, make_store: MakeStore, labels: Labels, reordered_labels: Labels, tmp_path: Path
    ) -> None:
        make_store(tmp_path / "one", bbox=self.bbox).save(labels)

        make_store(tmp_path / "two", bbox=self.bbox).save(reordered_labels)

        _check_files(tmp_path / "two", files_below(tmp_path / "one"), "with labels in another order,")

    # -- faults ----------------------------------------------------------------------------------------------------

    def test_a_save_that_fails_leaves_the_old_prediction(
        self, make_store: MakeStore, labels: Labels, failing_labels: Labels, tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)
        store.save(labels)
        before = files_below(tmp_path / "out")

        with pytest.raises(Exception):  # noqa: B017
            store.save(failing_labels)

        _check_files(tmp_path / "out", before, "after a save that failed,")

    def test_a_first_save_that_fails_leaves_nothing(
        self, make_store: MakeStore, failing_labels: Labels, tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)

        with pytest.raises(Exception):  # noqa: B017
            store.save(failing_labels)

        _check_files(tmp_path / "out", {}, "after a first save that failed,")
        with pytest.raises(NotReadableError):
            store.get_labels()

    def test_a_missing_prediction_is_an_error_that_names_it(self, make_store: MakeStore, tmp_path: Path) -> None:
        store = make_store(tmp_path / "nothing here", bbox=self.bbox)

        with pytest.raises(NotReadableError, match="nothing here"):
            store.get_labels()

    # -- sharing ---------------------------------------------------------------------------------------------------

    def test_labels_stay_as_they_are(self, make_store: MakeStore, labels: Labels, tmp_path: Path) -> None:
        before = copy.deepcopy(labels)

        make_store(tmp_path / "out", bbox=self.bbox).save(labels)

        check_same(labels, before, "what was saved")

    def test_survives_pickling(self, make_store: MakeStore, labels: Labels, tmp_path: Path) -> None:
        store = make_store(tmp_path / "out", bbox=self.bbox)
        store.save(labels)

        back = pickle.loads(pickle.dumps(store))

        assert back.bbox == self.bbox, f"the bbox of the pickled copy is {back.bbox}"
        self.check_labels(back.get_labels(), self.in_image(labels, self.bbox), "what a pickled copy gives back")


def _check_files(folder: Path, expected: dict[str, bytes], when: str) -> None:
    """Raise `AssertionError` if a folder does not hold exactly these files."""
    found = files_below(folder)
    more, less = sorted(found.keys() - expected.keys()), sorted(expected.keys() - found.keys())
    assert not more, f"{when} there are files that should not be there: {', '.join(more)}"
    assert not less, f"{when} files are missing: {', '.join(less)}"
    differ = [name for name, content in expected.items() if found[name] != content]
    assert not differ, f"{when} these files have other bytes than expected: {', '.join(differ)}"
