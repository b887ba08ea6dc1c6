"""The parameter table: checked as a set, described, and the same in every YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_ros.ros.parameters import PARAMETERS, Change, NodeOptions, Transport, defaults, refusal

CONFIG = Path(__file__).resolve().parents[2] / "config"


def values(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())["/**"]["ros__parameters"]
    return loaded


def test_the_defaults_fit() -> None:
    options = NodeOptions.of(defaults())
    assert options.cameras == ("camera",)
    assert options.image_transport is Transport.AUTO
    assert options.max_requests == 12


def test_the_shipped_file_has_every_parameter_with_its_default() -> None:
    assert values(CONFIG / "mobilevlm.yaml") == defaults()


def test_the_shipped_file_tells_each_meaning_and_range() -> None:
    text = (CONFIG / "mobilevlm.yaml").read_text()
    for parameter in PARAMETERS:
        assert f"# {parameter.description}" in text
        assert f"Changeable {parameter.change.value}." in text.split(f"# {parameter.description}")[1].split("\n\n")[0]
        if parameter.low is not None:
            assert f"{parameter.description} [{parameter.low} to {parameter.high}]" in text


@pytest.mark.parametrize("preset", sorted((CONFIG / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_changes_only_known_parameters_and_fits(preset: Path) -> None:
    changed = values(preset)
    assert set(changed) <= set(defaults())
    NodeOptions.of({**defaults(), **changed})


@pytest.mark.parametrize("parameter", [p for p in PARAMETERS if p.low is not None], ids=lambda p: p.name)
def test_a_number_outside_its_range_is_named_with_the_range(parameter: Any) -> None:
    kind = type(parameter.default)
    for value in (kind(parameter.low - 1), kind(parameter.high + 1)):
        with pytest.raises(ValueError, match=parameter.name) as caught:
            NodeOptions.of({**defaults(), parameter.name: value})
        assert str(parameter.high) in str(caught.value)
    NodeOptions.of({**defaults(), "context_length": 0, parameter.name: kind(parameter.low)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_transport": "pigeon"}, "auto, raw, compressed"),
        ({"cameras": []}, "at least one"),
        ({"cameras": ["front", "front"]}, "twice"),
        ({"cameras": ["/front"]}, "'/front'"),
        ({"cameras": ["fr ont"]}, "'fr ont'"),
        ({"adapters": ["/models/a", "/models/a"]}, "twice"),
        ({"rows": None}, "rows has no value"),
        ({"cameras": ["a" * 81]}, "80 characters"),
        ({"model": "/models/a", "adapters": ["/models/b", "/models/a"]}, "the model itself"),
        ({"context_length": 512, "max_tokens": 512}, "max_tokens"),
        ({"context_length": 200, "max_tokens": 16}, "at least 256"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NodeOptions.of({**defaults(), **changes})


@pytest.mark.parametrize("nothing", [None, [], [""]])
def test_no_adapters_can_be_said_in_every_way_that_ros_has(nothing: Any) -> None:
    assert NodeOptions.of({**defaults(), "adapters": nothing}).adapters == ()


def test_what_needs_a_new_model_changes_only_while_the_node_is_unconfigured() -> None:
    assert "threads" in (refusal({"threads": 2}, configured=True) or "")
    assert refusal({"threads": 2}, configured=False) is None
    assert refusal({"max_tokens": 2, "use_sim_time": True}, configured=True) is None


def test_descriptors_carry_meaning_range_and_changeability() -> None:
    by_name = {parameter.name: parameter.descriptor() for parameter in PARAMETERS}
    assert all(descriptor.description for descriptor in by_name.values())
    assert by_name["rows"].integer_range[0].to_value == 32
    assert by_name["temperature"].floating_point_range[0].to_value == 5.0
    assert by_name["image_transport"].additional_constraints.startswith("one of auto, raw, compressed")
    assert {name for name, descriptor in by_name.items() if descriptor.read_only} == {
        parameter.name for parameter in PARAMETERS if parameter.change is Change.NEVER
    }
