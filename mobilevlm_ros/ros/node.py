"""The node: a lifecycle node around one model, and the process that runs it.

Configure loads the model, active serves, cleanup frees the model; services and action exist from the start and answer NOT_ACTIVE
outside the active state. With `autostart` the node configures and activates itself. The parts do the work: `inputs` and `camera`
bring pictures in, `services`, `prompts` and `chat` take requests, `desk` serves them with the model of `selection`, `outputs` and
`diagnostics` tell.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.signals import SignalHandlerOptions

from mobilevlm_ros.ros.admission import Gate
from mobilevlm_ros.ros.camera import Cameras, CameraSlot, Times
from mobilevlm_ros.ros.chat import ChatServer
from mobilevlm_ros.ros.desk import Desk
from mobilevlm_ros.ros.diagnostics import CameraView, Diagnostics, NodeView, QueryView
from mobilevlm_ros.ros.inputs import CameraInput, base_topic
from mobilevlm_ros.ros.ledger import Ledger
from mobilevlm_ros.ros.memory import keep_picture_buffers, resident_bytes
from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.ros.model import load, name_of
from mobilevlm_ros.ros.model_services import ModelServices
from mobilevlm_ros.ros.outputs import Outputs
from mobilevlm_ros.ros.parameters import PARAMETERS, NodeOptions, refusal
from mobilevlm_ros.ros.prompts import Prompts
from mobilevlm_ros.ros.reception import Reception
from mobilevlm_ros.ros.selection import Selection
from mobilevlm_ros.ros.services import Services
from mobilevlm_ros.ros.serving import LOST_MODEL, run
from mobilevlm_ros.ros.sessions import Bounds, Sessions
from mobilevlm_ros.ros.space import Space
from mobilevlm_ros.ros.standing import Around, StandingQueries
from mobilevlm_ros.ros.standing_services import StandingServices, publisher
from mobilevlm_ros.ros.throttle import Throttle
from mobilevlm_ros.ros.watchdog import Watchdog
from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, VlmError
from mobilevlm_ros.tasks.results import Result

SPARE_THREADS = 5
"""Executor threads beyond those that requests may block: pictures, lifecycle and parameter calls, selections, cancels, timers."""

DRAIN_SECONDS = 5.0
"""How long requests that were taken back may need to leave."""

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
        self._progress = ""
        self._closing = False
        self._throttle = Throttle()
        self._options = self._declare_parameters()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._gate = Gate()
        self._ledger = Ledger()
        self._sessions = Sessions(self._session_bounds)
        self._reception = Reception(self.context)
        self._inputs = self._create_inputs()
        cameras = Cameras(tuple(camera.slot for camera in self._inputs))
        self._desk = Desk(self._gate, cameras, lambda: self._options, self._times, self._report)
        self._selection = Selection(self._desk, lambda options: load(options, self._on_progress), name_of)
        requests = ReentrantCallbackGroup()
        outputs = Outputs(self)
        self._space = Space(self, self._reception, self._inputs, lambda: self._options)
        services = Services(self, requests, self._desk, outputs, self._space)
        self._prompts = Prompts(self, MutuallyExclusiveCallbackGroup(), services, outputs)
        self._chat = ChatServer(self, requests, self._desk, outputs, self._sessions)
        ModelServices(self, requests, self._selection)
        self._standing = self._create_standing(cameras, requests)
        self._answer_impossible_transitions()
        self._answer_about_state_at_any_time()
        self._start_timers()

    @property
    def threads(self) -> int:
        """How many threads the node's executor needs, so that requests never keep anything else waiting."""
        return self._options.max_requests + SPARE_THREADS

    def close(self) -> None:
        """Ends every request and frees the model. The executor should still run, so that clients hear of their requests' end."""
        self._closing = True
        self._standing.pause()
        self._gate.close("it is shutting down")
        self._gate.wait_until_empty(DRAIN_SECONDS)
        self._standing.close(DRAIN_SECONDS)
        self._chat.wait_until_idle(DRAIN_SECONDS)
        self._prompts.close()
        self._reception.close()
        self._unload()

    def watchdog(self, on_hang: Callable[[str], None]) -> Watchdog:
        """Makes what looks for a model that hangs. `on_hang` is called with the reason, and should call `give_up`."""
        return Watchdog(lambda: self._selection.loaded, lambda: self._options.hang_timeout, on_hang)

    def give_up(self, reason: str) -> None:
        """Ends every request with MODEL_ERROR and tells why, although a model does not come back."""
        self.get_logger().fatal(reason)
        self._problem = reason
        self._selection.give_up(BackendError(reason))
        self._gate.close(reason)
        self._tell()

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Loads the model; a broken package is one line in the log and leaves the node unconfigured."""
        started = time.monotonic()
        self.get_logger().info(f"loading the model package '{self._options.model}'")
        try:
            self._space.check(self._options)
            model = self._selection.configure(self._options)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the package, the node stays and says so
            self._problem = error.message if isinstance(error, VlmError) else f"{type(error).__name__}: {error}"
            self.get_logger().error(f"cannot be configured: {self._problem}")
            self._gate.close(f"it could not be configured: {self._problem}")
            return TransitionCallbackReturn.FAILURE
        finally:
            self._progress = ""
        self._problem = ""
        self._standing.keep(self._options.standing_queries)
        self._gate.close("it is configured, but has not been activated")
        backend = model.stats()
        self.get_logger().info(f"loaded {model.name} in {time.monotonic() - started:.1f} s on {backend.backend}")
        if backend.notice:
            self.get_logger().warning(backend.notice)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Listens to the cameras and lets requests in."""
        for camera in self._inputs:
            camera.open(self._options.image_transport)
            self.get_logger().info(f"camera '{camera.slot.name}' listens on {' and '.join(camera.wanted_topics())}")
        self._space.open()
        self._gate.open(self._options.max_requests, self._options.rows)
        self._standing.open(self._options.rows)
        return super().on_activate(state)

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Ends the requests inside with CANCELLED and stops to listen."""
        self._close_gate("it was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Frees the model and forgets the conversations and the standing queries."""
        self._unload()
        self._gate.close("it is not configured")
        return super().on_cleanup(state)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Ends everything, from any state."""
        self._close_gate("it is shut down")
        self._unload()
        return super().on_shutdown(state)

    def _close_gate(self, because: str) -> None:
        self._standing.pause()
        self._gate.close(because)
        if not self._gate.wait_until_empty(DRAIN_SECONDS):
            self.get_logger().error(f"{self._gate.inside} requests did not end within {DRAIN_SECONDS:.0f} s")
        self._standing.close(DRAIN_SECONDS)
        for camera in self._inputs:
            camera.close()
        self._space.close()

    def _unload(self) -> None:
        self._standing.forget()
        self._sessions.clear()
        self._selection.unload()

    def _create_inputs(self) -> tuple[CameraInput, ...]:
        names = self._options.cameras

        def create(name: str) -> CameraInput:
            slot, topic = CameraSlot(name, self._times), base_topic(name, len(names))
            return CameraInput(self, self._reception, slot, topic, lambda: self._options.camera_linger)

        return tuple(map(create, names))

    def _create_standing(self, cameras: Cameras, group: ReentrantCallbackGroup) -> StandingQueries:
        around = Around(
            desk=self._desk,
            cameras=cameras,
            options=lambda: self._options,
            clock=self._times,
            model=lambda: self._selection.choice().active,
            publish=publisher(self),
            look=self._space.look,
            warn=self._warn,
            inform=self.get_logger().info,
        )
        queries = StandingQueries(around)
        StandingServices(self, group, queries, lambda: self._options)
        return queries

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
                self._warn("transition", f"transition {request.transition.id} is not possible now: {error}")
                response.success = False
                return response

        service.callback = callback

    def _on_progress(self, line: str) -> None:
        """Tells what loading a model is at, where that takes long; raises BackendError, which ends it, once the node closes."""
        if self._closing:
            raise BackendError("the node is shutting down")
        self._progress = line
        if said := self._throttle.line(line.split(":")[0], line):
            self.get_logger().info(said)

    def _answer_about_state_at_any_time(self) -> None:
        """Lets the state be asked for during a transition, which may take minutes; rclpy has one group for both."""
        group = MutuallyExclusiveCallbackGroup()
        group.add_entity(self._service_get_state)
        self._service_get_state.callback_group = group

    def _report(self, outcome: Outcome[Result]) -> None:
        """Counts an outcome, and logs its cause."""
        self._ledger.note(outcome)
        if outcome.error not in _CLIENT_ERRORS:
            self._warn(outcome.error, f"a request ended with {outcome.error.name}: {outcome.error_msg}")

    def _warn(self, cause: Hashable, text: str) -> None:
        """Logs a warning, at most one in some seconds for each cause."""
        if line := self._throttle.line(cause, text):
            self.get_logger().warning(line)

    def _tell(self) -> None:
        """Publishes the diagnostics."""
        state, options = self.lifecycle_state, self._options
        model = self._selection.model
        view = NodeView(
            state=state,
            problem=self._problem,
            model=model.name if model else options.model,
            stats=model.stats() if model else None,
            inside=self._gate.inside,
            sessions=len(self._sessions),
            memory=resident_bytes(),
            progress=self._progress,
        )
        cameras = [self._camera_view(camera, options.max_image_age) for camera in self._inputs]
        queries = [QueryView(one.query.name, one.counts, one.last.value, one.trouble) for one in self._standing.overview()]
        stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(self._diagnostics.message(stamp, time.monotonic(), view, cameras, queries))

    def _camera_view(self, camera: CameraInput, max_age: float) -> CameraView:
        newest = camera.slot.newest
        try:
            age = newest.age(self._times()) if newest else None
        except VlmError:  # a message too short to hold a stamp
            age = None
        topics, listening, problem = camera.wanted_topics(), camera.slot.listening, newest.problem if newest else ""
        depth = self._space.topics(camera.slot.name)
        return CameraView(camera.slot.name, topics, camera.slot.received, age, max_age, listening, problem, depth)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM.

    Returns:
        0 after a clean end, 1 where the parameters do not let the node start. Where a model was lost, the process ends here with
        LOST_MODEL: Python's own end would wait for the thread that is in the model.
    """
    lost = False
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
        lost = run(node, stop)
    finally:
        rclpy.shutdown()
        if lost:
            sys.stdout.flush()
            os._exit(LOST_MODEL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
