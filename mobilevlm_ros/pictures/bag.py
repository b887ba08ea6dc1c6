"""A recorded bag's pictures, through the library rosbags: no ROS installation is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mobilevlm_ros.pictures.messages import Pixels, compressed_to_rgb, to_rgb
from mobilevlm_ros.pictures.sampling import Sampling
from mobilevlm_ros.pictures.source import Item, Sample, Source, SourceKind, Unreadable, label
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame

_DECODERS: dict[str, Callable[[Any], Pixels]] = {
    "sensor_msgs/msg/Image": to_rgb,
    "sensor_msgs/msg/CompressedImage": compressed_to_rgb,
}


def open_bag(path: Path, sampling: Sampling, topic: str | None = None) -> Source:
    """Open a rosbag2 folder or a single .mcap, .db3 or .bag file.

    Args:
        topic: where its pictures are; None takes the only image topic.

    Raises:
        VlmError: BAD_IMAGE if the bag cannot be read or has no pictures; BAD_REQUEST if rosbags is missing, there are several
            image topics and none was chosen, or nothing of the bag lies between start and end.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise VlmError(ErrorCode.BAD_REQUEST, "reading a bag needs rosbags: install mobilevlm_ros[media]") from error
    if not path.exists():
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: no such bag")
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as error:  # rosbags and the storage behind it raise many kinds for damaged files
        raise _unreadable(path, error) from error
    try:
        connections = _connections(path, reader.connections, topic)
        duration = reader.duration / 1e9
        if sampling.start > duration:
            raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: the bag is {duration:.2f} s long, --start is {sampling.start:g}")
    except VlmError:
        reader.close()
        raise
    pictures = sum(connection.msgcount for connection in connections)
    expected = sampling.count(pictures, duration)
    rate = sampling.every.rate(pictures / duration if duration else 0.0)
    return Source(SourceKind.BAG, expected, rate, _pictures(path, reader, connections, sampling))


def _connections(path: Path, connections: list[Any], topic: str | None) -> list[Any]:
    """The connections of the topic that is asked for, or of the only one with pictures."""
    pictures = [connection for connection in connections if connection.msgtype in _DECODERS]
    topics = sorted({connection.topic for connection in pictures})
    if not topics:
        others = ", ".join(sorted({connection.topic for connection in connections})) or "none"
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: no pictures in this bag; its topics: {others}")
    if topic is None and len(topics) > 1:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: choose one of its image topics with --topic: {', '.join(topics)}")
    if topic is not None and topic not in topics:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{path}: no image topic {topic}; there are {', '.join(topics)}")
    return [connection for connection in pictures if connection.topic == (topic or topics[0])]


def _pictures(path: Path, reader: Any, connections: list[Any], sampling: Sampling) -> Iterator[Item]:
    try:
        for seconds, (connection, raw) in sampling.pick(_timed(reader, connections)):
            yield _picture(path, seconds, reader, connection.msgtype, raw)
    except Exception as error:  # noqa: BLE001 - likewise
        yield Unreadable(_unreadable(path, error))
    finally:
        reader.close()


def _timed(reader: Any, connections: list[Any]) -> Iterator[tuple[float, tuple[Any, bytes]]]:
    """Messages with the seconds from the bag's beginning to when they were recorded."""
    start = reader.start_time
    for connection, recorded, raw in reader.messages(connections):
        yield (recorded - start) / 1e9, (connection, raw)


def _picture(path: Path, seconds: float, reader: Any, kind: str, raw: bytes) -> Item:
    where = label(str(path), seconds)
    try:
        message = reader.deserialize(raw, kind)
        frame = Frame(_DECODERS[kind](message))
    except VlmError as error:
        return Unreadable(VlmError(error.code, f"{where}: {error.message}"))
    except Exception as error:  # noqa: BLE001 - likewise; this picture alone is damaged
        return Unreadable(VlmError(ErrorCode.BAD_IMAGE, f"{where}: {_first_line(error)}"))
    stamp = message.header.stamp
    return Sample(str(path), seconds, stamp.sec * 1_000_000_000 + stamp.nanosec, frame)


def _unreadable(path: Path, error: Exception) -> VlmError:
    return VlmError(ErrorCode.BAD_IMAGE, f"{path}: not a bag that can be read: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
