"""Positions for the regions of a grounding: the picture's depth image, its camera_info, and a frame of choice.

A region without a position says why, and its grounding is whole without it: nothing here ends a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Vector3
from mobilevlm_msgs.msg import Region, Regions
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.camera import Snapshot
from mobilevlm_ros.ros.depth import FIRST_DEPTH_SECONDS, LATE_SECONDS, DepthInput, Watch
from mobilevlm_ros.ros.inputs import CameraInput, base_topic
from mobilevlm_ros.ros.messages import box_of
from mobilevlm_ros.ros.parameters import NodeOptions
from mobilevlm_ros.ros.reception import Reception
from mobilevlm_ros.ros.transforms import Transforms, tf2
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.space.camera_model import CameraModel
from mobilevlm_ros.space.depth_image import depth_image
from mobilevlm_ros.space.errors import NoPositionError, Reason
from mobilevlm_ros.space.view import Placement, Transform, View


class Space:
    """The depth of a node's cameras. Safe to use from any thread."""

    def __init__(
        self, node: Node, reception: Reception, cameras: Sequence[CameraInput], options: Callable[[], NodeOptions]
    ) -> None:
        self._node = node
        self._options = options
        self._transforms = Transforms(node)
        self._inputs = {
            camera.slot.name: DepthInput(
                node, reception, camera, base_topic(camera.slot.name, len(cameras)), lambda: options().camera_linger
            )
            for camera in cameras
        }

    def check(self, options: NodeOptions) -> None:
        """Raises VlmError(BAD_REQUEST) where positions are wanted in a frame and there is no tf2 to find it."""
        if options.depth and options.target_frame:
            try:
                tf2()
            except NoPositionError as error:
                raise VlmError(ErrorCode.BAD_REQUEST, f"target_frame is '{options.target_frame}', but {error.message}") from error

    def open(self) -> None:
        """Starts to listen to depth, where the parameters say so."""
        options = self._options()
        if not options.depth:
            return
        for name, depth in self._inputs.items():
            depth.open()
            self._node.get_logger().info(f"camera '{name}' takes depth from {depth.depth_topic} and {depth.info_topic}")
        if options.target_frame:
            self._transforms.open()

    def close(self) -> None:
        """Stops to listen and forgets what came."""
        for depth in self._inputs.values():
            depth.close()
        self._transforms.close()

    def look(self, camera: str) -> Look:
        """Returns what one grounding needs, before its picture is taken. Waits for nothing.

        Args:
            camera: its name as in the request; empty for the first.
        """
        options = self._options()
        look = Look(self._inputs, self._transforms, options)
        if options.depth:
            look.use(camera or options.cameras[0])
        return look

    def topics(self, camera: str) -> tuple[str, ...]:
        """The topics that a camera's positions come from: its depth and its camera_info; none where `depth` is off."""
        depth = self._inputs[camera]
        return (depth.depth_topic, depth.info_topic) if self._options().depth else ()


class Look:
    """One grounding's way to its positions. It holds the depth image of its picture while the model works."""

    def __init__(self, inputs: dict[str, DepthInput], transforms: Transforms, options: NodeOptions) -> None:
        self._inputs = inputs
        self._transforms = transforms
        self._options = options
        self._snapshot: Snapshot | None = None
        self._watch: Watch | None = None
        self._used: DepthInput | None = None

    def use(self, camera: str) -> None:
        """Has a camera's depth listened to, where there is such a camera."""
        self._used = self._inputs.get(camera)
        if self._used is not None:
            self._used.use()

    def ready(self, timeout: float) -> Look:
        """Returns itself when the depth of a camera that has only now been listened to comes, or after FIRST_DEPTH_SECONDS.

        Args:
            timeout: the request's in seconds, of which a quarter may be waited; 0 where it names none.
        """
        if self._used is not None:
            self._used.wait_for_first(timeout / 4 if timeout > 0 else FIRST_DEPTH_SECONDS)
        return self

    def at(self, snapshot: Snapshot) -> Snapshot:
        """Begins to watch for the depth image of a picture, which is returned."""
        self._snapshot = snapshot
        if self._options.depth:
            self._watch = self._inputs[snapshot.camera].frames.watch(snapshot.stamp_ns)
        return snapshot

    def place(self, regions: Regions, target_frame: str = "") -> None:
        """Gives each region its position and extent, or the reason why it has none.

        Waits for a depth image that is on its way, and for a transform, at most LATE_SECONDS after the picture and
        `transform_timeout`.

        Args:
            regions: is changed.
            target_frame: the frame for the positions; empty for the one of the node's parameters.
        """
        snapshot = self._snapshot
        if not regions.regions or snapshot is None:
            return
        try:
            view = self._view(snapshot)
        except Exception as error:  # noqa: BLE001 - a defect must cost the positions and nothing else
            for region in regions.regions:
                region.position_msg = _why(error)
            return
        transform, header, problem = self._frame(snapshot.header, target_frame or self._options.target_frame)
        for region in regions.regions:
            try:
                _place(region, view, transform, header)
                region.position_msg = problem
            except Exception as error:  # noqa: BLE001 - as above
                region.position_msg = _why(error)

    def _view(self, snapshot: Snapshot) -> View:
        if self._watch is None:
            raise NoPositionError(Reason.OFF, "depth is not used: the parameter depth is false")
        inputs, frame = self._inputs[snapshot.camera], snapshot.frame
        depth = self._watch.nearest(snapshot.arrived + LATE_SECONDS)
        if depth is None:
            raise NoPositionError(Reason.NO_DEPTH, f"no depth image has come on {inputs.depth_topic}")
        apart = (depth.stamp_ns - self._watch.stamp_ns) / 1e9
        if abs(apart) > self._options.depth_tolerance:
            raise NoPositionError(
                Reason.STAMPS_APART,
                f"the nearest depth image on {inputs.depth_topic} is stamped {abs(apart):.3f} s "
                f"{'after' if apart > 0 else 'before'} the picture; depth_tolerance is {self._options.depth_tolerance:g} s",
            )
        info = inputs.info
        if info is None:
            raise NoPositionError(Reason.NO_CAMERA_INFO, f"no camera_info has come on {inputs.info_topic}")
        message: Image = _decoded(depth.serialized, Image, Reason.BAD_DEPTH)
        there, own = message.header.frame_id, snapshot.header.frame_id
        if there and own and there != own:
            raise NoPositionError(
                Reason.NOT_REGISTERED,
                f"the depth image is in the frame '{there}', the picture in '{own}': depth registered to the picture is needed",
            )
        model = CameraModel.of(_decoded(info, CameraInfo, Reason.BAD_CAMERA_INFO), self._options.picture_geometry)
        return View.of(depth_image(message), model, frame.width, frame.height)

    def _frame(self, header: Header, target: str) -> tuple[Transform | None, Header, str]:
        """Returns the way into the wanted frame, the header there, and what kept it from that frame."""
        if not target or target == header.frame_id:
            return None, header, ""
        try:
            transform = self._transforms.lookup(target, header, self._options.transform_timeout)
        except NoPositionError as error:
            return None, header, error.message
        return transform, Header(stamp=header.stamp, frame_id=target), ""


def _place(region: Region, view: View, transform: Transform | None, header: Header) -> None:
    points = view.surface(box_of(region.box)).points
    placement = Placement.of(transform.apply(points) if transform else points)
    if not np.isfinite((*placement.position, *placement.extent)).all():
        raise NoPositionError(Reason.NO_TRANSFORM, "the transform holds a number that is none")
    region.position = Point(**dict(zip("xyz", placement.position)))
    region.extent = Vector3(**dict(zip("xyz", placement.extent)))
    region.position_header = header
    region.has_position = True


def _decoded(serialized: bytes, kind: type[Any], reason: Reason) -> Any:
    try:
        return deserialize_message(serialized, kind)
    except Exception as error:  # the middleware has an exception of its own
        raise NoPositionError(reason, f"the {kind.__name__} message is damaged: {error}") from error


def _why(error: Exception) -> str:
    if isinstance(error, (NoPositionError, VlmError)):
        return error.message
    return f"{type(error).__name__}: {error}"
