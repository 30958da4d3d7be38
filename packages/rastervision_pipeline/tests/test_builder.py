"""Builders of small configs: what holds for any class."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from rastervision.pipeline import builder_keys
from rastervision.pipeline.builder import ConfigBuilder, builder_of
from rastervision.pipeline.builder_fields import singular_of
from rastervision.pipeline.builder_keys import Builders
from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.default_providers import DefaultProvider, default_config, extension_of
from rastervision.pipeline.errors import ConfigError, RegistryError
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline.registry import registry_

TOY_BUILDERS = Builders(
    aliases={"toy_source": {"file": "toy_file"}},
    deprecated={"toy_source": {"old_file": "toy_file"}, "toy_sink": {"old_file": "toy_sink"}},
    members={"toy_source": {"toy_stranger"}},
    bases={"toy_source"},
    retired={"punch_*": "Use TOY_FILE."},
)


@register_config("toy_source")
class ToySource(Config):
    scale: float = 1.0


@register_config("toy_file")
class ToyFile(ToySource):
    uris: list[str] = Field(description="Where the data is.")
    channel_order: list[int] | None = None


@register_config("toy_sink")
class ToySink(Config):
    uri: str | None = None


@register_config("toy_stranger")
class ToyStranger(Config):
    """Not a `ToySource`, but of its family."""


@register_config("toy_scene")
class ToyScene(Config):
    id: str
    source: ToySource
    others: list[ToySource] = []
    notes: str | list[str] = "none"
    size: int = 1
    stride: int | None = None
    places: dict[str, ToySource] = {}

    @model_validator(mode="after")
    def _fill_stride(self) -> Self:
        if self.stride is None:
            self.__dict__["stride"] = self.size
        return self


@register_config("toy_pipeline")
class ToyPipeline(PipelineConfig):
    command_uri_fields = ("make_uri",)

    make_uri: str | None = None
    other_uri: str | None = None
    sinks: list[ToySink] = []


@pytest.fixture(autouse=True)
def toy_builders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_, "builders", {"toy": TOY_BUILDERS})
    monkeypatch.setattr(registry_, "default_providers", {})
    monkeypatch.setattr(builder_keys, "_warned", set())


def file_builder() -> ConfigBuilder[Any]:
    return ToyFile.builder().with_uris(["a.tif"])


# -- immutable and forkable ------------------------------------------------------------------------------------


def test_scenario_01_each_call_returns_another_builder() -> None:
    empty = ToyFile.builder()

    first = empty.with_uris(["a.tif"])
    second = first.with_channel_order([1, 0])

    assert len({id(empty), id(first), id(second)}) == 3
    assert not empty.is_set("uris")
    assert first.is_set("uris") and not first.is_set("channel_order")
    assert second.build() == ToyFile(uris=["a.tif"], channel_order=[1, 0])


def test_scenario_02_branches_are_independent_of_each_other_and_of_the_fork_point() -> None:
    fork = file_builder().with_channel_order([9])

    left, right = fork.with_channel_order([0]), fork.with_channel_order([1])

    assert left.build().channel_order == [0]
    assert right.build().channel_order == [1]
    assert fork.build().channel_order == [9]


def test_scenario_10_later_changes_to_a_list_reach_neither_builder_nor_earlier_builds() -> None:
    uris = ["a.tif"]
    builder = ToyFile.builder().with_uris(uris)
    built = builder.build()

    uris.append("b.tif")
    built.uris.append("c.tif")
    builder.get("uris").append("d.tif")

    assert builder.build().uris == ["a.tif"]
    assert built.uris == ["a.tif", "c.tif"]


def test_configs_are_copied_in_and_out() -> None:
    source = ToyFile(uris=["a.tif"])
    builder = ToyScene.builder().with_id("x").with_source(source)

    source.uris.append("b.tif")
    built = builder.build()
    built.source.scale = 5.0

    assert builder.build().source == ToyFile(uris=["a.tif"])


def test_scenario_16_builders_are_copied_and_pickled_but_not_assigned_to() -> None:
    builder = ToyScene.builder().with_id("x").with_source(file_builder()).with_stride(2)

    for same in (copy.deepcopy(builder), copy.copy(builder), pickle.loads(pickle.dumps(builder))):
        assert same == builder
        assert same.build() == builder.build()
    with pytest.raises(AttributeError, match=r"with_id"):
        builder.id = "y"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="cannot be changed"):
        builder._values = {}
    with pytest.raises(AttributeError, match="cannot be changed"):
        del builder._values


# -- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["validate", "build"])
def test_scenario_03_a_missing_field_is_named_with_its_method(method: str) -> None:
    builder = ToyFile.builder().with_channel_order([0])

    with pytest.raises(ConfigError, match=r"uris is not set; call with_uris\("):
        getattr(builder, method)()


def test_scenario_04_all_missing_fields_are_in_one_error() -> None:
    with pytest.raises(ConfigError) as e:
        ToyScene.builder().add_other(ToyFile.builder()).validate()

    for text in ("id is not set; call with_id(", "source is not set; call with_source(", "others[0].uris is not set"):
        assert text in str(e.value)


def test_scenario_05_a_misspelt_method_names_the_closest_field() -> None:
    with pytest.raises(AttributeError, match="Did you mean with_channel_order"):
        _ = ToyFile.builder().with_chanel_order
    with pytest.raises(AttributeError, match="Did you mean clear_uris"):
        _ = ToyFile.builder().clear_uri
    with pytest.raises(AttributeError, match=r"no field 'urls'\. Did you mean uris"):
        ToyFile.builder().with_values(urls=["a.tif"])


def test_type_hint_cannot_be_set() -> None:
    for name in ("with_type_hint", "clear_type_hint"):
        assert not hasattr(ToyFile.builder(), name)
    with pytest.raises(AttributeError, match="type_hint"):
        ToyFile.builder().with_values(type_hint="toy_source")


def test_scenario_14_a_builder_in_a_builder_is_built_along_and_its_errors_have_the_path() -> None:
    scene = ToyScene.builder().with_id("x").with_source(file_builder()).with_places({"here": file_builder()})

    built = scene.build()

    assert built.source == ToyFile(uris=["a.tif"])
    assert built.places["here"] == ToyFile(uris=["a.tif"])
    with pytest.raises(ConfigError, match=r"places.there.uris is not set"):
        scene.with_places({"there": ToyFile.builder()}).build()
    with pytest.raises(ValidationError) as e:
        scene.with_source(file_builder().with_scale("big")).build()
    assert e.value.errors()[0]["loc"] == ("source", "scale")


def test_a_builder_of_a_class_that_is_not_registered_is_built_along() -> None:
    class Local(ToyFile):
        pass

    built = ToyScene.builder().with_id("x").with_source(Local.builder().with_uri("a.tif")).build()

    assert type(built.source) is Local
    with pytest.raises(ConfigError, match=r"source: .*scale"):
        ToyScene.builder().with_id("x").with_source(Local.builder().with_uri("a").with_scale("big")).build()


@pytest.mark.parametrize("values", [{"uris": 3}, {"uris": ["a"], "scale": "big"}, {"uris": [], "channel_order": ["x"]}])
def test_scenario_15_a_wrong_type_is_the_error_of_the_class(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as of_class:
        ToyFile(**values)

    with pytest.raises(ValidationError) as of_builder:
        ToyFile.builder().with_values(**values).build()

    assert of_builder.value.errors() == of_class.value.errors()
    with pytest.raises(ValidationError):
        ToyFile.builder().with_values(**values).validate()


def test_a_dict_with_an_unknown_type_hint_is_an_error_with_the_path() -> None:
    builder = ToyScene.builder().with_id("x")

    with pytest.raises(RegistryError, match=r"^others\[0\]: 'nope'"):
        builder.with_source(file_builder()).add_other({"type_hint": "nope"}).build()


# -- methods ---------------------------------------------------------------------------------------------------


def test_lists_are_set_and_appended_by_item() -> None:
    builder = file_builder()

    assert builder.with_uri("b").build().uris == ["b"]
    assert builder.add_uri("b").add_uri("c").build().uris == ["a.tif", "b", "c"]
    assert builder.with_channel_order(None).add_channel_order(2).build().channel_order == [2]
    assert ToyScene.builder().with_notes("x").add_note("y").get("notes") == ["x", "y"]


def test_appending_starts_from_the_default() -> None:
    class WithDefault(Config):
        names: list[str] = ["a"]

    assert WithDefault.builder().add_name("b").build().names == ["a", "b"]
    assert WithDefault.builder().with_name("b").build().names == ["b"]
    assert WithDefault().names == ["a"]


def test_a_cleared_field_has_its_default() -> None:
    builder = file_builder().with_scale(3)

    cleared = builder.clear_scale()

    assert not cleared.is_set("scale")
    assert cleared.build().scale == 1.0
    assert builder.get("scale") == 3
    assert cleared.get("scale") is None


def test_a_field_comes_before_a_helper_of_the_same_name() -> None:
    class Odd(Config):
        values: int = 0
        task: str = ""
        names: list[str] = []
        name: str = ""

    built = Odd.builder().with_values(3).with_task("t").with_name("n").build()

    assert (built.values, built.task, built.name, built.names) == (3, "t", "n", [])


def test_dicts_with_a_type_hint_become_configs() -> None:
    as_dict = {"type_hint": "toy_file", "uris": ["a.tif"]}

    built = ToyScene.builder().with_id("x").with_source(as_dict).with_others([as_dict]).build()

    assert built.source == built.others[0] == ToyFile(uris=["a.tif"])


def test_keywords_go_to_the_config_of_a_field() -> None:
    scene = ToyScene.builder().with_id("x")

    of_config = scene.with_source(ToyFile(uris=["a"]), scale=2)
    of_builder = scene.with_source(file_builder(), scale=2)

    assert of_config.build().source.scale == of_builder.build().source.scale == 2
    with pytest.raises(TypeError, match="keywords"):
        scene.with_stride(3, scale=2)
    for call in (scene.with_source, lambda: scene.with_id("y", scale=2), scene.add_other):
        with pytest.raises(TypeError, match="needs a value"):
            call()


def test_dir_and_repr_help_in_a_notebook() -> None:
    builder = file_builder()

    names = dir(builder)

    assert {"with_uris", "with_uri", "add_uri", "clear_uris", "with_values", "build", "validate"} <= set(names)
    assert not [name for name in names if name.startswith("_do_")]
    assert repr(builder) == "ToyFile.builder().with_uris(['a.tif'])"
    assert builder.with_uris.__doc__ == "Where the data is."
    assert all(callable(getattr(builder, n)) for n in names if n.startswith(("with_", "add_", "clear_")))


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("uris", "uri"),
        ("train_scenes", "train_scene"),
        ("classes", "class"),
        ("entities", "entity"),
        ("boxes", "box"),
        ("channel_order", "channel_order"),
        ("analysis", "analysis"),
        ("stages", "stage"),
    ],
)
def test_the_singular_of_a_field_is_english(plural: str, singular: str) -> None:
    assert singular_of(plural) == singular


# -- round trip ------------------------------------------------------------------------------------------------


def test_to_builder_holds_what_was_changed_in_place_too() -> None:
    config = ToyScene(id="x", source=ToyFile(uris=["a"]))
    config.others.append(ToyFile(uris=["b"]))

    builder = config.to_builder()
    config.others.append(ToyFile(uris=["c"]))

    assert builder.build().others == [ToyFile(uris=["b"])]
    assert not builder.is_set("notes")


def test_derived_values_stay_until_they_are_cleared() -> None:
    builder = ToyScene(id="x", source=ToyFile(uris=["a"]), size=100).to_builder().with_size(200)

    assert builder.build().stride == 100
    assert builder.clear_stride().build().stride == 200


def test_what_is_one_object_in_a_config_stays_one() -> None:
    source = ToyFile(uris=["a"])
    config = ToyScene(id="x", source=source, others=[source])

    built = builder_of(config).build()

    assert built.source is built.others[0]
    assert built.source is not source


def test_clear_command_uris_also_clears_what_lies_under_them() -> None:
    sinks = [ToySink(uri="old/make/a.json"), ToySink(uri="old/makeup/b.json")]
    config = ToyPipeline(root_uri="old", make_uri="old/make", other_uri="old/other", sinks=sinks)

    cleared = config.to_builder().clear_command_uris().build()

    assert cleared == ToyPipeline(root_uri="old", other_uri="old/other", sinks=[ToySink(), sinks[1]])
    assert config.sinks[0].uri == "old/make/a.json"
    nested = ToyPipeline.builder().with_make_uri("m").with_sink(ToySink.builder().with_uri("m/a"))
    assert nested.clear_command_uris().build() == ToyPipeline(sinks=[ToySink()])
    assert not hasattr(ToySink.builder(), "clear_command_uris")


# -- keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["toy_file", "TOY_FILE", "file", "FILE"])
def test_a_key_is_a_type_hint_or_an_alias_in_any_case(key: str) -> None:
    assert ToySource.builder(key).config_class is ToyFile


def test_a_family_can_have_members_that_are_no_subclasses() -> None:
    assert ToySource.builder("toy_stranger").config_class is ToyStranger


def test_the_base_of_a_family_builds_nothing_and_lists_the_keys() -> None:
    for call in (ToySource.builder, lambda: ToySource.builder("toy_source")):
        with pytest.raises(ConfigError, match=r"toy_file, toy_stranger"):
            call()
    with pytest.raises(ConfigError, match="needs the key"):
        Config.builder()


def test_keys_of_other_families_and_unknown_keys_are_errors() -> None:
    with pytest.raises(ConfigError, match="'toy_sink' is a ToySink, but a ToySource is needed"):
        ToySource.builder("toy_sink")
    with pytest.raises(RegistryError, match=r"'toy_fil'\. Did you mean toy_file"):
        ToySource.builder("toy_fil")
    with pytest.raises(RegistryError, match=r"'PUNCH_CARD' of older releases has no successor. Use TOY_FILE"):
        ToySource.builder("PUNCH_CARD")


def test_an_old_key_warns_once_at_the_caller() -> None:
    with pytest.warns(DeprecationWarning, match="TOY_FILE") as warned:
        first = ToySource.builder("OLD_FILE")

    assert warned[0].filename == __file__
    assert first == ToySource.builder("OLD_FILE") == ToyFile.builder()


def test_an_old_key_means_what_it_meant_in_its_family() -> None:
    with pytest.warns(DeprecationWarning, match="toy_sink"):
        assert ToySink.builder("OLD_FILE").config_class is ToySink


def test_scenario_09_a_key_of_a_plugin_is_like_one_of_ours(install_plugin: Any) -> None:
    module = """
        from rastervision.pipeline.builder_keys import Builders
        from rastervision.pipeline.config import Config, register_config
        from rastervision.pipeline.pipeline import PipelineConfig

        @register_config("acme_pipeline")
        class AcmePipelineConfig(PipelineConfig):
            makers: list[str] = []

        BUILDERS = Builders(aliases={"pipeline": {"acme": "acme_pipeline"}})
    """
    install_plugin(
        "acme",
        {"configs": {"acme_pipeline": "acme:AcmePipelineConfig"}, "builders": {"acme": "acme:BUILDERS"}},
        {"acme.py": module},
    )

    builders = [PipelineConfig.builder(key) for key in ("acme_pipeline", "ACME_PIPELINE", "ACME")]

    for builder in builders:
        config = builder.with_root_uri("out").add_maker("m").build()
        assert type(config).__name__ == "AcmePipelineConfig"
        assert config.to_builder().build() == config
        assert config.model_dump()["makers"] == ["m"]
    assert "acme_pipeline" in builder_keys.keys_of(PipelineConfig)


# -- default providers -----------------------------------------------------------------------------------------


class _Files(DefaultProvider):
    def handles(self, uri: str, task: str | None = None) -> bool:
        return extension_of(uri) == ".toy"

    def is_default_for(self, task: str) -> bool:
        return task == "toy_pipeline"

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        return ToyFile(uris=[uri or f"{task}.toy"], **kwargs)


def test_providers_serve_strings_in_fields_of_their_family_only() -> None:
    scene = ToyScene.builder().with_id("x").with_notes("n.toy")
    with pytest.raises(ValidationError, match="source"):
        scene.with_source("a.toy").build()

    registry_.add_default_provider("toy_source", _Files())

    built = scene.with_source("a.TOY", scale=2).with_others(["b.toy"]).add_other("c.toy").build()
    assert built.source == ToyFile(uris=["a.TOY"], scale=2)
    assert built.others == [ToyFile(uris=["b.toy"]), ToyFile(uris=["c.toy"])]
    assert built.notes == "n.toy"
    with pytest.raises(RegistryError, match=r"^source: No provider makes a toy_source for 'a.tif'"):
        scene.with_source("a.tif").build()


def test_builders_learn_the_task_from_those_around_them() -> None:
    class Around(PipelineConfig):
        scene: ToyScene

    registry_.add_default_provider("toy_source", _Files())
    scene = ToyScene.builder().with_id("x").with_source()

    with pytest.raises(ConfigError, match=r"^source: .*with_task"):
        scene.build()
    assert scene.with_task(ToyPipeline).build() == scene.build(task="TOY_PIPELINE")
    assert scene.with_task(ToyPipeline()).build().source == ToyFile(uris=["toy_pipeline.toy"])
    assert Around.builder().with_scene(scene).with_task("toy_pipeline").build().scene.source is not None
    with pytest.raises(RegistryError, match="by default of the task pipeline"):
        Around.builder().with_scene(scene).build()
    with pytest.raises(RegistryError, match="no task 'knitting'"):
        scene.with_task("knitting")


def test_the_provider_added_last_is_asked_first() -> None:
    class Rival(_Files):
        def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
            return ToyFile(uris=["rival"])

    rival = Rival()
    registry_.add_default_provider("toy_source", _Files())
    registry_.add_default_provider("toy_source", rival)

    assert default_config("toy_source", "a.toy") == ToyFile(uris=["rival"])
    registry_.remove_default_provider("toy_source", rival)
    assert default_config("toy_source", "a.toy") == ToyFile(uris=["a.toy"])


@pytest.mark.parametrize(
    ("uri", "extension"),
    [
        ("a.TIF", ".tif"),
        ("https://x.org/a.tif?sig=b.json#c.d", ".tif"),
        ("s3://bucket.name/key", ""),
        ("store.zarr/", ".zarr"),
        ("folder.d/.hidden", ""),
        ("/data/a.vrt?x=1", ".vrt"),
    ],
)
def test_the_extension_is_that_of_the_path(uri: str, extension: str) -> None:
    assert extension_of(uri) == extension
