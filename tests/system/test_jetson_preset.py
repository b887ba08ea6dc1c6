"""The launch preset for Jetsons, on a pretended one: the model that ships runs on TensorRT and answers right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from rclpy.node import Node

from mobilevlm_ros.client import VLM
from mobilevlm_ros.doctor.models import PICTURE, QUESTION, RIGHT
from mobilevlm_ros.pictures.files import read_picture
from tests.system.graph import ON_SIMULATED_TENSORRT, PATIENCE, Camera, running_node, until, until_seen

PRESET = Path(__file__).resolve().parents[2] / "config" / "presets" / "jetson.yaml"


def test_the_model_that_ships_answers_from_tensorrt_with_the_preset(tester: Node, tmp_path: Path) -> None:
    parameters = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    parameters |= {"engine_cache": str(tmp_path / "engines"), "max_image_age": 1000.0, "model": "nano"}
    log = tmp_path / "node.log"
    with running_node("jetson_vlm", log, ["image:=/jetson/image"], program=ON_SIMULATED_TENSORRT, **parameters) as node:
        camera = Camera(tester, "/jetson/image")
        vlm = VLM(tester, "jetson_vlm")
        vlm.wait_until_there(PATIENCE)
        until_seen(vlm, camera)
        header = camera.show(np.asarray(read_picture(PICTURE).pixels))
        until(lambda: vlm.ask("Which?", max_tokens=1).info.header == header)
        assert vlm.ask(QUESTION).text.rstrip(".").lower() == RIGHT
        assert "on tensorrt-10.16.0-trt" in node.log
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 2
