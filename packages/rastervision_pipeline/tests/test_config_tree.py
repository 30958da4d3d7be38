from __future__ import annotations

import copy
import gc
from enum import Enum
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.config_tree import (
    classes_below,
    fields_to,
    fields_to_overrides,
    own,
    pass_on,
    passes_on,
    replaced,
    with_rare_gc,
    without_gc,
)
from rastervision.pipeline.errors import ConfigError


class Kind(Enum):
    OAK = "oak"


@register_config("ct_leaf")
class LeafConfig(Config):
    """A leaf."""

    size: int = Field(1, description="Its size.")
    kind: Kind = Field(Kind.OAK, description="Of what.")


@register_config("ct_branch")
class BranchConfig(Config):
    """A branch."""

    name: str | None = Field(None, description="Its name.")
    leaf: LeafConfig | None = Field(None, description="One leaf.")
    leaves: list[LeafConfig] = Field([], description="Leaves.")
    by_name: dict[str, LeafConfig | None] = Field({}, description="More leaves.")
    extra: dict[str, Any] = Field({}, description="Anything.")
    _cache: list[int] = PrivateAttr(default_factory=list)


@register_config("ct_tree")
class TreeConfig(Config):
    """A tree."""

    branches: list[BranchConfig] = Field([], description="Branches.")
    limits: tuple[int, int] = Field((0, 1), description="Limits.")


def test_copies_share_nothing_but_keep_what_is_one_object_one() -> None:
    leaf = LeafConfig(size=2)
    branch = BranchConfig(leaf=leaf, leaves=[leaf, LeafConfig()], extra={"a": [{"b": {1, 2}}]})
    branch._cache.append(3)
    tree = TreeConfig(branches=[branch, branch])

    for other in (tree.copy(), copy.deepcopy(tree), tree.model_copy(deep=True)):
        first, second = other.branches
        assert other == tree
        assert first is second
        assert first.leaf is first.leaves[0]
        assert first.leaf is not leaf
        assert first.model_fields_set == branch.model_fields_set
        assert first._cache == [3]
        first.leaf.size = 5  # type: ignore[union-attr]
        first.extra["a"][0]["b"].add(3)
        first._cache.append(4)
        first.name = "x"
    assert leaf.size == 2
    assert branch.extra == {"a": [{"b": {1, 2}}]}
    assert branch._cache == [3]
    assert "name" not in branch.model_fields_set


def test_fields_that_lead_to_a_class() -> None:
    assert fields_to(TreeConfig, LeafConfig) == ("branches",)
    assert fields_to(BranchConfig, LeafConfig) == ("leaf", "leaves", "by_name", "extra")
    assert fields_to(LeafConfig, LeafConfig) == ()
    assert fields_to(TreeConfig, BranchConfig) == ("branches",)


@pytest.mark.usefixtures("forget_new_configs")
def test_fields_that_lead_to_checks_are_known_anew_when_there_are_new_classes() -> None:
    assert fields_to_overrides(TreeConfig, "validate_config") == ()

    class CheckedLeafConfig(LeafConfig):
        def validate_config(self) -> None:
            if self.size < 0:
                raise ConfigError("size is negative.")

    assert fields_to_overrides(TreeConfig, "validate_config") == ("branches",)
    assert CheckedLeafConfig in classes_below({LeafConfig})
    tree = TreeConfig(branches=[BranchConfig(by_name={"a": None, "b": CheckedLeafConfig(size=-1)})])
    with pytest.raises(ConfigError, match="size is negative"):
        tree.recursive_validate_config()


def test_a_config_that_only_its_parent_refers_to_is_not_copied() -> None:
    branch = BranchConfig(leaf=LeafConfig(), leaves=[LeafConfig(), LeafConfig()])
    before = [id(branch.leaf), *map(id, branch.leaves)]

    own(branch, "leaf")
    own(branch, "leaves")

    assert [id(branch.leaf), *map(id, branch.leaves)] == before


def test_what_something_else_refers_to_is_copied_before_it_is_changed() -> None:
    leaf, first = LeafConfig(), LeafConfig(size=3)
    branch = BranchConfig(leaf=leaf, leaves=[first, LeafConfig()])
    other = BranchConfig(leaf=leaf, leaves=branch.leaves)
    second = id(branch.leaves[1])

    for parent in (branch, other):
        own(parent, "leaf").size = 7
        for item in own(parent, "leaves"):
            item.size += 1

    assert leaf.size == 1
    assert first.size == 3
    assert branch == other
    assert branch.leaf is not other.leaf
    assert [leaf.size for leaf in branch.leaves] == [4, 2]
    assert len({second, *map(id, branch.leaves), *map(id, other.leaves)}) >= 4
    assert own(branch, "name") is None


def test_a_list_that_someone_holds_is_not_changed() -> None:
    branch = BranchConfig(leaves=[LeafConfig()])
    held = branch.leaves

    own(branch, "leaves")[0].size = 9

    assert held[0].size == 1
    assert branch.leaves[0].size == 9


def test_the_collector_runs_again_after_a_pause() -> None:
    with pytest.raises(KeyError), without_gc(), without_gc():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_thresholds_of_the_collector_come_back() -> None:
    before = gc.get_threshold()

    with pytest.raises(KeyError), with_rare_gc():
        assert gc.get_threshold()[0] >= 100_000
        raise KeyError

    assert gc.get_threshold() == before


@register_config("ct_sized")
class SizedConfig(Config):
    """Something that is given a size."""

    size: int = Field(0, description="Its size.")

    def update(self, size: int) -> None:
        self.size = size


@register_config("ct_plain_box")
class PlainBoxConfig(Config):
    """A box of leaves, which have nothing to update."""

    leaf: LeafConfig = Field(description="A leaf.")

    @passes_on
    def update(self, size: int) -> None:
        pass_on(self, "update", size)


@register_config("ct_box")
class BoxConfig(Config):
    """A box."""

    one: SizedConfig | None = Field(None, description="One thing.")
    many: list[SizedConfig] = Field([], description="Things.")
    plain: PlainBoxConfig | None = Field(None, description="A box.")

    @passes_on
    def update(self, size: int) -> None:
        pass_on(self, "update", size)


def test_a_call_is_passed_on_to_copies_of_what_others_hold() -> None:
    shared = SizedConfig()
    box = BoxConfig(one=shared, many=[shared, SizedConfig()], plain=PlainBoxConfig(leaf=LeafConfig()))

    box.update(3)

    assert box.one is not None
    assert [box.one.size, *(thing.size for thing in box.many)] == [3, 3, 3]
    assert shared.size == 0
    assert BoxConfig().one is None
    BoxConfig().update(1)


def test_what_nobody_else_holds_is_not_copied() -> None:
    box = BoxConfig(one=SizedConfig(), many=[SizedConfig()])
    ids = [id(box.one), id(box.many[0])]

    box.update(3)

    assert [id(box.one), id(box.many[0])] == ids


def test_only_fields_with_something_to_do_are_visited() -> None:
    assert fields_to_overrides(BoxConfig, "update") == ("one", "many")
    assert fields_to_overrides(PlainBoxConfig, "update") == ()


def test_replaced_shares_the_rest() -> None:
    branch = BranchConfig(leaf=LeafConfig())

    other = replaced(branch, name="oak")

    assert (other.name, branch.name) == ("oak", None)
    assert other.leaf is branch.leaf
    assert other.model_fields_set == {"leaf", "name"}
