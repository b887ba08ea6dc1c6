"""The node: a lifecycle node around one model, and the process that runs it.

Configure loads the model, active serves, cleanup frees the model; services and action exist from the start and answer NOT_ACTIVE
outside the active state. With `autostart` the node configures and activates itself. The parts do the work: `inputs` and `camera`
bring pictures in, `services`, `prompts` and `chat` take requests, `desk` serves them with the model of `selection`, `outputs` and
`diagnostics` tell.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.signals import SignalHandlerOptions

from mobilevlm_ros.ros.admission import Gate
from mobilevlm_ros.ros.camera import Cameras, CameraSlot, Times
from mobilevlm_ros.ros.chat import ChatServer
from mobilevlm_ros.ros.desk import Desk
from mobilevlm_ros.ros.diagnostics import CameraView, Diagnostics, Ledger, NodeView
from mobilevlm_ros.ros.executor import SteadyExecutor
from mobilevlm_ros.ros.inputs import CameraInput, base_topic
from mobilevlm_ros.ros.memory import keep_picture_buffers
from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.ros.model import load, name_of
from mobilevlm_ros.ros.model_services import ModelServices
from mobilevlm_ros.ros.outputs import Outputs
from mobilevlm_ros.ros.parameters import PARAMETERS, NodeOptions, Transport, refusal
from mobilevlm_ros.ros.prompts import Prompts
from mobilevlm_ros.ros.selection import Selection
from mobilevlm_ros.ros.services import Services
from mobilevlm_ros.ros.sessions import Bounds, Sessions
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.tasks.results import Result

SPARE_THREADS = 5
"""Executor threads beyond those that requests may block: pictures, lifecycle and parameter calls, selections, cancels, timers."""

DRAIN_SECONDS = 5.0
"""How long requests that were taken back may need to leave."""

FAREWELL_SECONDS = 0.5
"""How long the executor runs on after the last request has ended, because the last results leave through it."""

_CLIENT_ERRORS = (ErrorCode.NONE, ErrorCode.CANCELLED, ErrorCode.NO_GROUNDING)
"""Ends of a request that are not worth a line in the log."""


class MobileVlmNode(LifecycleNode):
    """The lifecycle node `mobilevlm`."""

    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            kwargs: for rclpy's node, such as `context` or `parameter_overrides`.

        Raises:
            ValueError: the parameters do not fit; rclpy has exceptions of its own for wrong types and ranges.
        """
        super().__init__("mobilevlm", **kwargs)
        self._problem = ""
        self._last_logged: dict[ErrorCode, float] = {}
        self._options = self._declare_parameters()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._gate = Gate()
        self._ledger = Ledger()
        self._sessions = Sessions(self._session_bounds)
        self._inputs = self._create_inputs()
        cameras = Cameras(tuple(camera.slot for camera in self._inputs))
        self._desk = Desk(self._gate, cameras, lambda: self._options, self._times, self._report)
        self._selection = Selection(self._desk, load, name_of)
        requests = ReentrantCallbackGroup()
        outputs = Outputs(self)
        services = Services(self, requests, self._desk, outputs)
        self._prompts = Prompts(self, MutuallyExclusiveCallbackGroup(), services, outputs)
        self._chat = ChatServer(self, requests, self._desk, outputs, self._sessions)
        ModelServices(self, requests, self._selection)
        self._answer_impossible_transitions()
        self._start_timers()

    @property
    def threads(self) -> int:
        """How many threads the node's executor needs, so that requests never keep anything else waiting."""
        return self._options.max_requests + SPARE_THREADS

    def close(self) -> None:
        """Ends every request and frees the model. The executor should still run, so that clients hear of their requests' end."""
        self._gate.close("it is shutting down")
        self._gate.wait_until_empty(DRAIN_SECONDS)
        self._chat.wait_until_idle(DRAIN_SECONDS)
        self._prompts.close()
        self._unload()

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Loads the model; a broken package is one line in the log and leaves the node unconfigured."""
        started = time.monotonic()
        self.get_logger().info(f"loading the model package '{self._options.model}'")
        try:
            model = self._selection.configure(self._options)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the package, the node stays and says so
            self._problem = error.message if isinstance(error, VlmError) else f"{type(error).__name__}: {error}"
            self.get_logger().error(f"cannot be configured: {self._problem}")
            self._gate.close(f"it could not be configured: {self._problem}")
            return TransitionCallbackReturn.FAILURE
        self._problem = ""
        self._gate.close("it is configured, but has not been activated")
        self.get_logger().info(f"loaded {model.name} in {time.monotonic() - started:.1f} s")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Listens to the cameras and lets requests in."""
        for camera in self._inputs:
            camera.open(self._options.image_transport)
            self.get_logger().info(f"camera '{camera.slot.name}' listens on {' and '.join(camera.topics)}")
        self._gate.open(self._options.max_requests)
        return super().on_activate(state)

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Ends the requests inside with CANCELLED and stops to listen."""
        self._close_gate("it was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Frees the model and forgets the conversations."""
        self._unload()
        self._gate.close("it is not configured")
        return super().on_cleanup(state)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Ends everything, from any state."""
        self._close_gate("it is shut down")
        self._unload()
        return super().on_shutdown(state)

    def _close_gate(self, because: str) -> None:
        self._gate.close(because)
        if not self._gate.wait_until_empty(DRAIN_SECONDS):
            self.get_logger().error(f"{self._gate.inside} requests did not end within {DRAIN_SECONDS:.0f} s")
        for camera in self._inputs:
            camera.close()

    def _unload(self) -> None:
        self._sessions.clear()
        self._selection.unload()

    def _create_inputs(self) -> tuple[CameraInput, ...]:
        group = MutuallyExclusiveCallbackGroup()
        names = self._options.cameras
        return tuple(CameraInput(self, group, CameraSlot(name, self._times), base_topic(name, len(names))) for name in names)

    def _start_timers(self) -> None:
        # On a clock of their own: with use_sim_time the node's clock stands still until somebody publishes /clock.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = Diagnostics(self.get_fully_qualified_name(), self.get_name(), self._ledger)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        period = self._options.diagnostics_period
        self.create_timer(period, self._tell, MutuallyExclusiveCallbackGroup(), clock=self._steady)
        if self._options.autostart:
            # In the default group, as the lifecycle services are, so that a transition is never begun inside another.
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=self._steady)

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.lifecycle_state == "unconfigured" and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    @property
    def lifecycle_state(self) -> str:
        """The lifecycle state's label, such as `active`."""
        return str(self._state_machine.current_state[1])

    def _times(self) -> Times:
        clock = self.get_clock()
        return Times(clock.now().nanoseconds, not clock.ros_time_is_active)

    def _session_bounds(self) -> Bounds:
        return Bounds(self._options.chat_sessions, self._options.chat_turns, self._options.chat_timeout)

    def _declare_parameters(self) -> NodeOptions:
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        return NodeOptions.of(self._parameter_values())

    def _parameter_values(self) -> dict[str, Any]:
        # An empty list on the command line leaves a parameter without a value.
        return {parameter.name: self.get_parameter_or(parameter.name).value for parameter in PARAMETERS}

    def _on_set_parameters(self, changed: list[RosParameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in changed}
        reason = refusal(changes, configured=self.lifecycle_state != "unconfigured")
        if reason is None:
            try:
                self._options = NodeOptions.of({**self._parameter_values(), **changes})
            except ValueError as error:
                reason = str(error)
        return SetParametersResult(successful=reason is None, reason=reason or "")

    def _answer_impossible_transitions(self) -> None:
        """Makes `change_state` answer with success=False where rclpy would raise in the executor and leave the client waiting."""
        service = self._service_change_state
        change_state = service.callback

        def callback(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except Exception as error:  # noqa: BLE001 - rclpy's own exception has no public name
                self.get_logger().warning(f"transition {request.transition.id} is not possible now: {error}")
                response.success = False
                return response

        service.callback = callback

    def _report(self, outcome: Outcome[Result]) -> None:
        """Counts an outcome, and logs its cause at most every 5 s for each error code."""
        self._ledger.note(outcome)
        if outcome.error in _CLIENT_ERRORS:
            return
        now = time.monotonic()
        if now - self._last_logged.get(outcome.error, -5.0) >= 5.0:
            self._last_logged[outcome.error] = now
            self.get_logger().warning(f"a request ended with {outcome.error.name}: {outcome.error_msg}")

    def _tell(self) -> None:
        """Publishes the diagnostics, and lets the cameras follow what is published."""
        state, options = self.lifecycle_state, self._options
        if state == "active" and options.image_transport is Transport.AUTO:
            for camera in self._inputs:
                camera.follow_graph()
        model = self._selection.model
        view = NodeView(
            state=state,
            problem=self._problem,
            model=model.name if model else options.model,
            stats=model.stats() if model else None,
            inside=self._gate.inside,
            sessions=len(self._sessions),
        )
        cameras = [self._camera_view(camera, options.max_image_age) for camera in self._inputs]
        stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(self._diagnostics.message(stamp, time.monotonic(), view, cameras))

    def _camera_view(self, camera: CameraInput, max_age: float) -> CameraView:
        newest = camera.slot.newest
        try:
            age = newest.age(self._times()) if newest else None
        except VlmError:  # a message too short to hold a stamp
            age = None
        return CameraView(camera.slot.name, camera.topics, camera.slot.received, age, max_age)


def spin(node: MobileVlmNode, executor: Executor, stop: threading.Event) -> None:
    """Runs callbacks until `stop` is set or the context ends. An exception of a callback is logged and ends nothing else."""
    while not stop.is_set() and node.context.ok():
        try:
            executor.spin_once(timeout_sec=1.0)
        except Exception as error:  # noqa: BLE001 - one callback must not end the others
            if not stop.is_set():
                node.get_logger().error(f"a callback raised {type(error).__name__}: {error}")


def run(node: MobileVlmNode, stop: threading.Event) -> None:
    """Serves until `stop` is set, then ends the requests, the callbacks and the node, in this order."""
    executor = SteadyExecutor(num_threads=node.threads)
    executor.add_node(node)
    stop_spinning = threading.Event()
    spinner = threading.Thread(target=spin, args=(node, executor, stop_spinning), name="mobilevlm-spin")
    spinner.start()
    try:
        stop.wait()
    finally:
        node.close()
        time.sleep(FAREWELL_SECONDS)
        stop_spinning.set()
        executor.wake()
        spinner.join()
        _join_pool(executor)
        executor.shutdown(timeout_sec=2.0)
        node.destroy_node()


def _join_pool(executor: Executor) -> None:
    """Waits for callbacks that run still; rclpy's own shutdown destroys what a callback that has just begun would use."""
    pool = getattr(executor, "_executor", None)
    if pool is not None:
        pool.shutdown(wait=True)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM.

    Returns:
        0 after a clean end, 1 where the parameters do not let the node start.
    """
    keep_picture_buffers()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # rclpy's own handlers would shut the context down under the requests that still want to tell their clients of their end.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        try:
            node = MobileVlmNode()
        except Exception as error:  # noqa: BLE001 - rclpy raises many kinds for parameters that do not fit
            rclpy.logging.get_logger("mobilevlm").fatal(f"cannot start: {error}")
            return 1
        run(node, stop)
    finally:
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
