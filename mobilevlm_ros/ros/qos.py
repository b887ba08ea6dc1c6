"""The named quality-of-service profiles of the node, and which of their policies a user may override.

Each function returns a new profile, because rclpy writes a user's overrides into the profile that it is given. Overrides are the
parameters `qos_overrides.<topic>.<publisher|subscription>.<history|depth|reliability>`. Nothing here knows the topics.
"""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def camera() -> QoSProfile:
    """Sensor data, and only the newest: a picture that was missed is not worth waiting for."""
    return _profile(1, QoSReliabilityPolicy.BEST_EFFORT)


def result() -> QoSProfile:
    """Answers and regions: rare, and each one matters."""
    return _profile(10, QoSReliabilityPolicy.RELIABLE)


def picture() -> QoSProfile:
    """Annotated pictures: reliable, because viewers ask for that, and one deep, because they are large."""
    return _profile(1, QoSReliabilityPolicy.RELIABLE)


def words() -> QoSProfile:
    """Questions that come in on a topic."""
    return _profile(10, QoSReliabilityPolicy.RELIABLE)


def requests() -> QoSProfile:
    """Service calls. Deeper than the usual ten, because a call that is dropped from a full queue is never answered."""
    return _profile(256, QoSReliabilityPolicy.RELIABLE)


def stream() -> QoSProfile:
    """Pieces of an answer as it is made: all of them, also for a client that reads slowly."""
    return _profile(256, QoSReliabilityPolicy.RELIABLE)


def overridable() -> QoSOverridingOptions:
    """Returns the options that let a user override history, depth and reliability by parameter."""
    return QoSOverridingOptions.with_default_policies()


def _profile(depth: int, reliability: QoSReliabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=QoSDurabilityPolicy.VOLATILE,
    )
