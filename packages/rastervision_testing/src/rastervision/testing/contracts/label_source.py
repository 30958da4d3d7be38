"""What every label source must do.

Subclass `LabelSourceContract` in a test module, name the class ``Test...``, and override ``make_source``, ``known``
and, if you can, ``make_empty_source``:

    class TestMyLabels(LabelSourceContract):
        @pytest.fixture
        def make_source(self):
            return lambda bbox=None: MyLabels("labels.csv", bbox=bbox or SCENE)

        @pytest.fixture
        def known(self):
            return [(Box(0, 0, 8, 8), 1), (Box(0, 8, 8, 16), 0)]
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer.crs_transformer import CRSTransformer
from rastervision.core.data.label.labels import Labels
from rastervision.testing.contracts.compare import check_same, scribble

if TYPE_CHECKING:
    from collections.abc import Callable

    from rastervision.core.data.label_source import LabelSource

    MakeSource = Callable[..., LabelSource]
    Known = list[tuple[Box, Any]]

__all__ = ["LabelSourceContract"]


class LabelSourceContract:
    """Checks a source of the labels of a scene of at least 24 x 24 pixels, whose bbox begins at (0, 0)."""

    #: Part of the scene with objects that lie wholly inside or outside of it, and a corner that is not (0, 0).
    part: Box = Box(4, 8, 20, 24)

    @pytest.fixture
    def make_source(self) -> MakeSource:
        """A function of ``bbox`` that makes a source; without one, of the whole scene."""
        raise NotImplementedError

    @pytest.fixture
    def known(self) -> Known:
        """Windows of the scene, three or more, with what ``source[window]`` is.

        One of them should lie in `part`, and one may reach beyond the scene.
        """
        raise NotImplementedError

    @pytest.fixture
    def make_empty_source(self) -> Callable[[], tuple[LabelSource, Any]]:
        """A function that makes a source of a scene without labels, and what ``source[Box(0, 0, 4, 4)]`` is."""
        pytest.skip("the source is given no scene without labels")

    # -- the frame -------------------------------------------------------------------------------------------------

    def test_extent_is_the_bbox_from_zero(self, make_source: MakeSource) -> None:
        source, part = make_source(), make_source(bbox=self.part)

        assert source.extent == source.bbox, f"the scene's extent is {source.extent}, its bbox {source.bbox}"
        assert part.bbox == self.part, f"bbox is {part.bbox}, but {self.part} was given"
        assert part.extent == Box(0, 0, *self.part.size), f"the extent of the bbox {self.part} is {part.extent}"

    def test_says_where_it_lies_on_the_map(self, make_source: MakeSource) -> None:
        transformer = make_source().crs_transformer

        assert isinstance(transformer, CRSTransformer), f"crs_transformer is a {type(transformer).__name__}"

    # -- windows ---------------------------------------------------------------------------------------------------

    def test_gives_the_labels_of_windows(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()

        for window, value in known:
            check_same(source[window], value, f"source[{window}]")

    def test_windows_are_relative_to_the_bbox(self, make_source: MakeSource, known: Known) -> None:
        inside = [(window, value) for window, value in known if window in self.part]
        assert inside, f"none of the known windows lies in {self.part}"
        source = make_source(bbox=self.part)

        for window, value in inside:
            local = window.to_local_coords(self.part)
            check_same(source[local], value, f"with bbox {self.part}, source[{local}]")

    def test_a_bbox_can_be_set_later(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()
        scene = source.bbox
        source[known[0][0]]

        source.set_bbox(self.part)

        assert source.bbox == self.part, f"bbox is {source.bbox} after set_bbox({self.part})"
        check_same(source.get_labels(), make_source(bbox=self.part).get_labels(), "the labels after set_bbox")
        source.set_bbox(scene)
        for window, value in known:
            check_same(source[window], value, f"back at the first bbox, source[{window}]")

    def test_each_window_is_honoured_whatever_was_read_before(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()
        order = np.random.default_rng(0).permutation(3 * len(known)) % len(known)

        for window, value in (known[i] for i in order):
            check_same(source[window], value, f"source[{window}]")

    def test_slices_are_windows(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()
        if not _takes_slices(source):
            pytest.skip("the source is indexed by windows only")

        for window, value in known:
            if min(window) >= 0:
                rows, cols = window.to_slices()
                check_same(source[rows, cols], value, f"source[{rows.start}:{rows.stop}, {cols.start}:{cols.stop}]")
        check_same(source[:], source[source.extent], "source[:]")
        check_same(source[2:], source[Box(2, 0, *source.extent.size)], "source[2:]")
        check_same(source[..., 3:], source[Box(0, 3, *source.extent.size)], "source[..., 3:]")

    @pytest.mark.parametrize(
        ("key", "error"),
        [
            ((slice(-4, None), slice(None)), NotImplementedError),
            ((3, slice(None)), ValueError),
            ((Ellipsis, Ellipsis), ValueError),
            ((slice(None),) * 3, IndexError),
            (None, TypeError),
            ("all", TypeError),
        ],
    )
    def test_indices_that_make_no_sense_are_refused(
        self, make_source: MakeSource, key: Any, error: type[Exception]
    ) -> None:
        source = make_source()

        with pytest.raises(error if _takes_slices(source) else NotImplementedError):
            source[key]

    # -- labels ----------------------------------------------------------------------------------------------------

    def test_gives_the_labels_of_the_scene(self, make_source: MakeSource) -> None:
        source = make_source()

        labels = source.get_labels()

        assert isinstance(labels, Labels), f"get_labels() gives a {type(labels).__name__}, which is no Labels"
        check_same(source.get_labels(), labels, "get_labels(), the second time")
        check_same(make_source().get_labels(), labels, "get_labels() of another source of the same scene")

    def test_the_labels_of_the_scene_do_not_depend_on_windows_read_before(
        self, make_source: MakeSource, known: Known
    ) -> None:
        source = make_source()
        for window, _ in known:
            source.get_labels(window)

        check_same(source.get_labels(), make_source().get_labels(), "get_labels() after reading windows")

    def test_gives_the_labels_of_a_window(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()

        for window, _ in known:
            labels = source.get_labels(window)
            assert isinstance(labels, Labels), f"get_labels({window}) gives a {type(labels).__name__}"
            check_same(make_source().get_labels(window), labels, f"get_labels({window})")

    def test_a_scene_without_labels_is_no_error(self, make_empty_source: Callable[[], tuple[LabelSource, Any]]) -> None:
        source, nothing = make_empty_source()

        check_same(source[Box(0, 0, 4, 4)], nothing, "a window of a scene without labels")
        check_same(source.get_labels(), make_empty_source()[0].get_labels(), "the labels of a scene without labels")

    # -- sharing ---------------------------------------------------------------------------------------------------

    def test_labels_are_the_callers_own(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()

        for window, value in known:
            scribble(source[window])
            check_same(source[window], value, f"source[{window}], after what was read before was changed")

    def test_survives_pickling(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()
        source[known[0][0]]

        copy = pickle.loads(pickle.dumps(source))

        assert copy.bbox == source.bbox, f"the bbox of the pickled copy is {copy.bbox}"
        for window, value in known:
            check_same(copy[window], value, f"source[{window}] of a pickled copy")

    def test_is_read_by_threads(self, make_source: MakeSource, known: Known) -> None:
        source = make_source()
        asked = known * 8

        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(source.__getitem__, (window for window, _ in asked)))

        for (window, value), labels in zip(asked, read, strict=True):
            check_same(labels, value, f"source[{window}], read by a thread")


def _takes_slices(source: LabelSource) -> bool:
    try:
        source[0:4, 0:4]
    except NotImplementedError:
        return False
    return True
