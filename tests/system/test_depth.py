"""Positions of regions, from the camera's topics to the response, over real DDS and with the nano model's own boxes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mobilevlm_msgs.msg import Region, RequestOptions
from mobilevlm_msgs.srv import Ground
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.runtime.errors import ErrorCode
from tests.space.scenes import Rendered, Thing, depth_message, rendered, spoiled
from tests.system.graph import PATIENCE, Caller, Camera, Listener, Process, running_node, until

NAME = "depth_vlm"
CAMERAS = ("whole", "bare", "uncalibrated", "late", "askew")
SCENES = rendered()
LINGER = 0.3


@pytest.fixture(scope="module")
def node(nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("depth") / "node.log"
    with running_node(
        NAME, log, model=nano_package, cameras=CAMERAS, depth=True, max_image_age=1000.0, camera_linger=0.0
    ) as process:
        yield process


class Grounding:
    """Calls a node's `~/ground`."""

    def __init__(self, node: Node, name: str) -> None:
        self._call = Caller(node, Ground, f"/{name}/ground")

    def find(self, thing: Thing, header: Header | None, camera: str = "", target_frame: str = "") -> Region | None:
        """The region of a thing in the picture with this header, None where there is none or the picture has not come.

        Without a header, any picture is meant.
        """
        options = RequestOptions(camera=camera)
        options.timeout.sec = round(PATIENCE)
        request = Ground.Request(expression=thing.name, max_regions=1, options=options, target_frame=target_frame)
        response = self._call(request)
        absent = (ErrorCode.NO_GROUNDING, ErrorCode.NO_IMAGE, ErrorCode.NOT_ACTIVE)
        assert response.error_code in (ErrorCode.NONE, *absent), response.error_msg
        regions = response.result.regions
        return regions[0] if regions and header in (None, response.result.info.header) else None


@pytest.fixture(scope="module")
def grounding(tester: Node, node: Process) -> Grounding:
    return Grounding(tester, NAME)


def image_of(message: Any, header: Header) -> Image:
    """A depth message with a header."""
    fields = {"width": message.width, "height": message.height, "encoding": message.encoding, "step": message.step}
    return Image(header=header, **fields, data=list(message.data))


@dataclass(frozen=True)
class Fault:
    """What is wrong with a camera's depth."""

    later: float = 0.0
    frame: str = "optical"
    encoding: str = "16UC1"


class DepthCamera:
    """Publishes a rendered scene: picture, depth and camera_info."""

    def __init__(self, node: Node, name: str, grounding: Grounding) -> None:
        self._name = name
        self._grounding = grounding
        self.picture = Camera(node, f"{name}/image")
        self._depth = node.create_publisher(Image, f"{name}/depth", 1)
        self._info = node.create_publisher(CameraInfo, f"{name}/camera_info", 1)
        for publisher in (self.picture.publisher, self._depth, self._info):
            until(publisher.get_subscription_count)

    def show(
        self,
        scene: Rendered,
        fault: Fault | None = Fault(),
        calibrated: bool = True,
        spoil: bool = False,
        header: Header | None = None,
    ) -> Header:
        """Makes a scene the newest one, stamped now or with a header from before; without a `fault`, no depth is published."""
        header = header or self.picture.header()
        if calibrated:
            height, width = scene.millimetres.shape
            self._info.publish(CameraInfo(header=header, width=width, height=height, k=scene.k, distortion_model="plumb_bob"))
        if fault is not None:
            stamped = self.picture.header(fault.later) if fault.later else header
            depth_header = Header(stamp=stamped.stamp, frame_id=fault.frame)
            depth = spoiled(scene.millimetres, 0.2, 0.003) if spoil else scene.millimetres
            self._depth.publish(image_of(depth_message(depth, fault.encoding), depth_header))
        self.picture.publisher.publish(image_message(scene.pixels, header))
        return header

    def ground(self, thing: Thing, header: Header | None, target_frame: str = "") -> Region | None:
        """As `Grounding.find`, with this camera."""
        return self._grounding.find(thing, header, self._name, target_frame)

    @property
    def depth_listeners(self) -> int:
        """How many listen to the depth."""
        return int(self._depth.get_subscription_count())

    @contextmanager
    def streaming(self, scene: Rendered) -> Iterator[None]:
        """Publishes a scene 20 times a second."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.05):
                self.show(scene)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def place(self, scene: Rendered, thing: Thing, header: Header, spoil: bool) -> Region:
        """The region of a thing that is in a scene shown with this header, with its position; what got lost is shown again."""

        def attempt() -> Region | None:
            region = self.ground(thing, header)
            if region is None or not region.has_position:
                self.show(scene, spoil=spoil, header=header)
                return None
            return region

        return until(attempt)

    def find(self, **shown: Any) -> Region:
        """The region of a first scene's thing, shown again until it has come through: a new subscription may miss the first."""
        scene = SCENES[0]
        return until(lambda: self.ground(scene.things[0], self.show(scene, **shown)))


@pytest.fixture(scope="module")
def whole(tester: Node, grounding: Grounding) -> DepthCamera:
    camera = DepthCamera(tester, "whole", grounding)
    until(lambda: camera.find().has_position)
    return camera


def off(region: Region, true: tuple[float, float, float]) -> float:
    """The distance from a region's position to a place."""
    return float(np.linalg.norm(np.subtract((region.position.x, region.position.y, region.position.z), true)))


@pytest.mark.parametrize("spoil", [False, True])
def test_what_the_model_finds_is_where_it_truly_is(whole: DepthCamera, spoil: bool) -> None:
    errors = []
    for scene in SCENES[:4]:
        header = whole.show(scene, spoil=spoil)
        for thing in scene.things:
            region = whole.place(scene, thing, header, spoil)
            assert region.position_header == header
            assert region.position_msg == ""
            errors.append(off(region, thing.surface.position))
    assert len(errors) > 10
    assert np.median(errors) < 0.01
    assert np.quantile(errors, 0.9) < 0.03


def test_markers_show_where_the_regions_are(whole: DepthCamera, tester: Node) -> None:
    messages = pytest.importorskip("visualization_msgs.msg", reason="visualization_msgs is not installed")
    listener = Listener(tester, messages.MarkerArray, f"/{NAME}/markers")

    def shown() -> Any:
        position = whole.find().position
        return next((array for array in listener.messages if position in [it.pose.position for it in array.markers]), None)

    _, box, words = until(shown).markers
    assert box.header.frame_id == "optical"
    assert words.text.startswith(SCENES[0].things[0].name)


def test_without_tf2_a_region_in_another_frame_stays_in_the_cameras_and_says_why(whole: DepthCamera) -> None:
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("tf2_ros is there")
    scene = SCENES[0]
    region = until(lambda: whole.ground(scene.things[0], whole.show(scene), target_frame="map"))
    assert region.has_position
    assert region.position_header.frame_id == "optical"
    assert "tf2_ros cannot be imported" in region.position_msg


@pytest.mark.parametrize(
    ("camera", "shown", "words"),
    [
        ("bare", {"fault": None}, "no depth image has come on /bare/depth"),
        ("uncalibrated", {"calibrated": False}, "no camera_info has come on /uncalibrated/camera_info"),
        ("late", {"fault": Fault(later=-60.0)}, "s before the picture; depth_tolerance is 0.05 s"),
        ("askew", {"fault": Fault(frame="infra")}, "is in the frame 'infra', the picture in 'optical'"),
        ("askew", {"fault": Fault(encoding="rgb8")}, "carries 'rgb8', it must be 16UC1 or 32FC1"),
    ],
)
def test_a_region_without_a_position_is_whole_otherwise_and_says_why(
    tester: Node, grounding: Grounding, camera: str, shown: dict[str, Any], words: str
) -> None:
    there = DepthCamera(tester, camera, grounding)

    def says_why() -> Region | None:
        region = there.find(**shown)
        return region if words in region.position_msg else None

    region = until(says_why)
    assert not region.has_position
    assert region.score > 0.0
    assert region.box.x2 > region.box.x1


def test_a_node_whose_frame_needs_a_tf2_that_is_not_there_is_not_configured(nano_package: Path, tmp_path: Path) -> None:
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("tf2_ros is there")
    with running_node("framed_vlm", tmp_path / "node.log", model=nano_package, depth=True, target_frame="map") as process:
        until(lambda: "cannot be configured: target_frame is 'map', but tf2_ros cannot be imported" in process.log)


def test_depth_is_left_alone_until_somebody_grounds_and_then_the_first_region_has_its_position(
    whole: DepthCamera, tester: Node
) -> None:
    scene = SCENES[0]
    change = Caller(tester, SetParameters, f"/{NAME}/set_parameters")

    def set_linger(seconds: float) -> None:
        parameter = Parameter("camera_linger", value=seconds).to_parameter_msg()
        change(SetParameters.Request(parameters=[parameter]))

    set_linger(LINGER)
    try:
        until(lambda: not whole.depth_listeners)
        with whole.streaming(scene):
            began = time.monotonic()
            region = whole.ground(scene.things[0], None)
            assert region is not None
            assert region.has_position, region.position_msg
            assert whole.depth_listeners == 1 or time.monotonic() - began >= LINGER
    finally:
        set_linger(0.0)
