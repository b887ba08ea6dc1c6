"""The Fast DDS profile in a process's environment."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from mobilevlm_ros.ros.dds import VARIABLES, profile_variables
from mobilevlm_ros.ros.shared_files import find


def test_both_variables_name_the_shipped_profile() -> None:
    variables = profile_variables({})
    assert set(variables) == set(VARIABLES)
    (path,) = set(variables.values())
    names = {element.tag.rpartition("}")[2]: element.text for element in ElementTree.parse(path).iter()}
    assert int(names["segment_size"] or 0) >= 32 << 20


def test_a_profile_of_the_users_own_is_left_alone() -> None:
    for name in VARIABLES:
        assert profile_variables({name: "/mine.xml"}) == {}


def test_a_shipped_file_is_found_and_another_is_not() -> None:
    assert find("config/mobilevlm.yaml") == Path(__file__).resolve().parents[2] / "config" / "mobilevlm.yaml"
    assert find("config/nothing.yaml") is None
