"""Finds the usual wiring mistakes around a running MobileVLM node, for `mobilevlm doctor --graph`.

Looks from outside, as a node of its own in the same domain, and listens to the pictures as the node does. It changes nothing and
knows nothing of the model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.signals import SignalHandlerOptions

from mobilevlm_ros.doctor.check import Check, Group, Status
from mobilevlm_ros.ros.dds import profile_variables

_PARAMETERS = ("cameras", "image_transport", "camera_linger", "max_image_age", "use_sim_time", "depth", "picture_geometry")
_TRANSITIONS = ("configuring", "activating")
_ASK_AGAIN = 1.0
"""Seconds after which an answer is taken for lost."""
_NEXT = {"unconfigured": ("configure", "activate"), "inactive": ("activate",)}


class Observer:
    """A node that looks at the graph, and runs its own callbacks while it waits."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        self.node = node
        self._executor = executor

    def wait(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Returns the condition's value as soon as it is true, or after `seconds` as it is then."""
        end = time.monotonic() + seconds
        while not (value := condition()) and (remaining := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(remaining, 0.05))
        return value

    def call(self, kind: type[Any], name: str, request: Any, seconds: float) -> Any:
        """Calls a service that changes nothing; returns its response, or None where none came within `seconds`.

        It is asked again while it does not answer: what a node answers to a client that it has not discovered is lost.
        """
        client = self.node.create_client(kind, name)
        futures: list[Any] = []

        def answered() -> Any:
            return next((future for future in futures if future.done()), None)

        try:
            if not self.wait(client.service_is_ready, seconds):
                return None
            end = time.monotonic() + seconds
            while not answered() and (remaining := end - time.monotonic()) > 0:
                futures.append(client.call_async(request))
                self.wait(answered, min(remaining, _ASK_AGAIN))
            first = answered()
            return first.result() if first else None
        finally:
            self.node.destroy_client(client)

    def nodes(self) -> list[str]:
        """The full names of the nodes in the graph, this one left out."""
        own = self.node.get_fully_qualified_name()
        found = (f"{space.rstrip('/')}/{name}" for name, space in self.node.get_node_names_and_namespaces())
        return sorted(name for name in found if name != own)


@contextmanager
def observing() -> Iterator[Observer]:
    """An observer in the domain that the environment names."""
    os.environ.update(profile_variables(os.environ))
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        name = f"mobilevlm_doctor_{os.getpid()}"
        node = Node(name, context=context, use_global_arguments=False, start_parameter_services=False, enable_rosout=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            yield Observer(node, executor)
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def examine_graph(name: str, seconds: float) -> Iterator[Group]:
    """Look at a node and at the topics of its cameras, group by group.

    Args:
        name: the node's name, with its namespace if it has one.
        seconds: how long to wait for the node, and again for the pictures of each topic.
    """
    from mobilevlm_ros.ros.wiring_depth import depth_groups
    from mobilevlm_ros.ros.wiring_topics import topic_groups

    full_name = f"/{name.strip('/')}"
    with observing() as observer:
        presence = node_check(observer, full_name, seconds)
        if presence.status is Status.FAIL:
            yield Group("graph", (surroundings(), presence))
            return
        state, lifecycle = lifecycle_check(observer, full_name, seconds)
        if state != "active":
            yield Group("graph", (surroundings(), presence, lifecycle))
            return
        settings = parameters(observer, full_name, seconds)
        if not settings:
            detail = f"{full_name}/get_parameters does not answer within {seconds:g} s, so its cameras cannot be looked at"
            silence = Check("parameters", Status.FAIL, detail, "see the node's log; a busy machine may need more --seconds")
            yield Group("graph", (surroundings(), presence, lifecycle, silence))
            return
        yield Group("graph", (surroundings(), presence, lifecycle))
        yield from topic_groups(observer, full_name, settings, seconds)
        yield from depth_groups(observer, full_name, settings, seconds)


def surroundings() -> Check:
    """Where is looked: what has to be the same for two nodes to meet."""
    return Check("domain", Status.PASS, _where())


def node_check(observer: Observer, full_name: str, seconds: float) -> Check:
    """Whether the node is there, once."""
    count = observer.wait(lambda: observer.nodes().count(full_name), seconds)
    if count == 1:
        return Check("node", Status.PASS, full_name)
    if count:
        return Check("node", Status.WARN, f"{count} nodes are called {full_name}", "give each a name or namespace of its own")
    seen = observer.nodes()
    detail = f"no node {full_name} in {seconds:g} s; nodes seen: {', '.join(seen) or 'none'}"
    others = _model_nodes(observer)
    if others:
        return Check("node", Status.FAIL, detail, f"look at the one that is there: --node {others[0]}")
    same = f"start both with the same ROS_DOMAIN_ID and RMW_IMPLEMENTATION (here: {_where()})"
    start = "start it (ros2 launch mobilevlm_ros mobilevlm.launch.py)"
    return Check("node", Status.FAIL, detail, f"{start}, or {same}; a busy machine may need more --seconds")


def lifecycle_check(observer: Observer, full_name: str, seconds: float) -> tuple[str, Check]:
    """The node's lifecycle state, empty where it does not tell, and what that means. A node in transition is waited for."""
    end = time.monotonic() + seconds
    response = observer.call(GetState, f"{full_name}/get_state", GetState.Request(), seconds)
    while response is not None and response.current_state.label in _TRANSITIONS and time.monotonic() < end:
        observer.wait(lambda: False, 0.2)
        response = observer.call(GetState, f"{full_name}/get_state", GetState.Request(), seconds)
    if response is None:
        detail = f"{full_name}/get_state does not answer within {seconds:g} s"
        remedy = "is this the MobileVLM node, and does its process still run? See its log"
        return "", Check("lifecycle", Status.FAIL, detail, remedy)
    state = response.current_state.label
    if state == "active":
        return state, Check("lifecycle", Status.PASS, state)
    steps = [f"ros2 lifecycle set {full_name} {step}" for step in _NEXT.get(state, ())]
    remedy = " && ".join(steps) or "wait, or start the node again"
    return state, Check("lifecycle", Status.FAIL, f"{state}: it listens to no camera and answers NOT_ACTIVE", remedy)


def parameters(observer: Observer, full_name: str, seconds: float, names: Sequence[str] = _PARAMETERS) -> Mapping[str, Any]:
    """The node's parameters of these names, by default those that concern its cameras; empty where it does not answer."""
    request = GetParameters.Request(names=list(names))
    response = observer.call(GetParameters, f"{full_name}/get_parameters", request, seconds)
    if response is None:
        return {}
    return dict(zip(names, map(parameter_value_to_python, response.values), strict=False))


def _model_nodes(observer: Observer) -> list[str]:
    """Nodes under other names that answer questions as this one does."""
    suffix = "/ask"
    return sorted(
        name.removesuffix(suffix)
        for name, kinds in observer.node.get_service_names_and_types()
        if "mobilevlm_msgs/srv/Ask" in kinds and name.endswith(suffix)
    )


def _where() -> str:
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    parts = [f"ROS_DOMAIN_ID {os.environ.get('ROS_DOMAIN_ID') or 0}", rclpy.get_rmw_implementation_identifier()]
    return ", ".join([*parts, f"discovery range {reach}"] if reach else parts)
