from __future__ import annotations

from rastervision.pipeline.registry import registry_
from rastervision.pytorch_backend.upgraders import BACKEND, LEARNER


def test_versions_are_those_of_0_31() -> None:
    assert BACKEND.version == 2
    assert LEARNER.version == 7


def test_geo_data_windows_have_a_new_name() -> None:
    assert LEARNER.renames == {"geo_data_window": "window_sampling"}


def test_the_plugins_are_installed() -> None:
    assert registry_.get_plugin_version("rastervision.pytorch_backend") == 2
    assert registry_.get_plugin_version("rastervision.pytorch_learner") == 7
    assert registry_.get_renamed_type_hint("geo_data_window") == "window_sampling"
