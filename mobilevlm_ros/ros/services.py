"""The four services: requests in, typed responses out, and every result on the result topics too."""

from __future__ import annotations

from mobilevlm_msgs import msg as vlm_msgs
from mobilevlm_msgs.srv import Ask, Classify, DescribeRegion, Ground
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.desk import Desk, Job
from mobilevlm_ros.ros.messages import answer_message, box_of, info_message, regions_message, seconds
from mobilevlm_ros.ros.outputs import Outputs
from mobilevlm_ros.ros.space import Space


class Services:
    """Serves `~/ask`, `~/ground`, `~/describe_region` and `~/classify`. Its callbacks may run side by side."""

    def __init__(self, node: Node, group: CallbackGroup, desk: Desk, outputs: Outputs, space: Space) -> None:
        """Args: group: a reentrant one, on an executor with a thread for each request that the desk admits."""
        self._desk = desk
        self._outputs = outputs
        self._space = space
        for kind, name, callback in (
            (Ask, "~/ask", self._ask),
            (Ground, "~/ground", self._ground),
            (DescribeRegion, "~/describe_region", self._describe_region),
            (Classify, "~/classify", self._classify),
        ):
            node.create_service(kind, name, callback, qos_profile=qos.requests(), callback_group=group)

    def answer(self, question: str, options: vlm_msgs.RequestOptions) -> vlm_msgs.Answer:
        """Answers a question, publishes the answer and returns it; blocks until then."""
        job = Job()
        outcome = self._desk.serve(options, lambda model, snapshot, settings: model.ask(snapshot.frame, question, settings), job)
        answer = answer_message(outcome, question)
        self._outputs.answer(answer, job.snapshot)
        return answer

    def _ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        response.answer = self.answer(request.question, request.options)
        response.error_code, response.error_msg = response.answer.error_code, response.answer.error_msg
        return response

    def _ground(self, request: Ground.Request, response: Ground.Response) -> Ground.Response:
        job, look = Job(), self._space.look(request.options.camera).ready(seconds(request.options.timeout))
        expression, max_regions = request.expression, request.max_regions
        outcome = self._desk.serve(
            request.options,
            lambda model, snapshot, settings: model.ground(look.at(snapshot).frame, expression, settings, max_regions),
            job,
        )
        response.result = regions_message(outcome, expression)
        look.place(response.result, request.target_frame)
        response.error_code, response.error_msg = response.result.error_code, response.result.error_msg
        self._outputs.regions(response.result, job.snapshot)
        return response

    def _describe_region(self, request: DescribeRegion.Request, response: DescribeRegion.Response) -> DescribeRegion.Response:
        job = Job()
        box = box_of(request.box)
        outcome = self._desk.serve(
            request.options, lambda model, snapshot, settings: model.describe_region(snapshot.frame, box, settings), job
        )
        response.answer = answer_message(outcome, outcome.result.question if outcome.result else "")
        response.error_code, response.error_msg = response.answer.error_code, response.answer.error_msg
        self._outputs.answer(response.answer, job.snapshot, box if outcome.result else None)
        return response

    def _classify(self, request: Classify.Request, response: Classify.Response) -> Classify.Response:
        job = Job()
        question, labels = request.question, list(request.labels)
        outcome = self._desk.serve(
            request.options,
            lambda model, snapshot, settings: model.classify(snapshot.frame, question, labels, settings),
            job,
        )
        response.info = info_message(outcome)
        if outcome.result:
            response.label, response.probabilities = outcome.result.label, list(outcome.result.probabilities)
        response.error_code, response.error_msg = int(outcome.error), outcome.error_msg
        self._outputs.answer(
            vlm_msgs.Answer(
                info=response.info,
                question=question,
                text=response.label,
                error_code=response.error_code,
                error_msg=response.error_msg,
            ),
            job.snapshot,
        )
        return response
