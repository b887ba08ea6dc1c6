"""Whether a ROS 2 node can run: rclpy, middleware, domain, messages."""

from __future__ import annotations

from mobilevlm_ros.doctor.check import Check, Status, Surroundings
from mobilevlm_ros.doctor.imports import imported, probe

_SOURCE = "source /opt/ros/<distro>/setup.bash, or run tools/setup demo and then: . .venv/ros_env.sh"


def ros_checks(surroundings: Surroundings) -> tuple[Check, ...]:
    """All that concerns ROS; middleware and domain only where rclpy works."""
    rclpy = probe("rclpy", "m.get_rmw_implementation_identifier()")
    if rclpy.error:
        return (Check("rclpy", Status.MISSING, rclpy.error, _SOURCE), messages())
    distribution = surroundings.environ.get("ROS_DISTRO") or "distribution unknown: ROS_DISTRO is not set"
    return (
        Check("rclpy", Status.PASS, f"ROS 2 {distribution}, {rclpy.output}"),
        domain(surroundings),
        messages(),
        cv_bridge(),
    )


def without_ros() -> Check | None:
    """A failed check where a running graph cannot be looked at, because rclpy does not work."""
    rclpy = probe("rclpy", "m.get_rmw_implementation_identifier()")
    return Check("rclpy", Status.FAIL, rclpy.error, _SOURCE) if rclpy.error else None


def domain(surroundings: Surroundings) -> Check:
    """The domain that nodes meet in."""
    text = surroundings.environ.get("ROS_DOMAIN_ID", "").strip()
    reach = surroundings.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip()
    detail = f"{text or 0}" + (f", discovery range {reach}" if reach else "")
    if text and not (text.isdigit() and (int(text) <= 101 or 215 <= int(text) <= 232)):
        return Check("ROS domain", Status.WARN, detail, "set ROS_DOMAIN_ID to 0 to 101, or unset it")
    return Check("ROS domain", Status.PASS, detail)


def messages() -> Check:
    """The interfaces that this package adds."""
    return imported(
        "mobilevlm_msgs",
        "mobilevlm_msgs",
        Status.MISSING,
        "build ros2_ws with colcon and source install/setup.bash, or run tools/setup demo",
        "__import__('mobilevlm_msgs.srv') and 'built'",
    )


def cv_bridge() -> Check:
    """What reads unusual encodings."""
    remedy = "only for unusual image encodings: apt install ros-<distro>-cv-bridge"
    return imported("cv_bridge", "cv_bridge", Status.MISSING, remedy, "'works'")
