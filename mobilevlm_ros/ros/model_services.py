"""The services that say which models there are and let another one answer."""

from __future__ import annotations

import time

from mobilevlm_msgs.srv import ListModels, SelectModel
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.selection import SHOWN, Selection
from mobilevlm_ros.ros.throttle import Throttle
from mobilevlm_ros.runtime.engine import as_vlm_error
from mobilevlm_ros.runtime.errors import ErrorCode


class ModelServices:
    """Serves `~/select_model` and `~/list_models`. A selection blocks its thread until the model is loaded."""

    def __init__(self, node: Node, group: CallbackGroup, selection: Selection) -> None:
        """Args: group: a reentrant one, so that a second selection is told at once that it is one too many."""
        self._log = node.get_logger()
        self._throttle = Throttle()
        self._selection = selection
        for kind, name, callback in ((SelectModel, "~/select_model", self._select), (ListModels, "~/list_models", self._list)):
            node.create_service(kind, name, callback, qos_profile=qos.requests(), callback_group=group)

    def _select(self, request: SelectModel.Request, response: SelectModel.Response) -> SelectModel.Response:
        started = time.monotonic()
        try:
            self._selection.select(request.name)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the package, the model before goes on answering
            reason = as_vlm_error(error)
            response.error_code, response.error_msg = int(reason.code), reason.message
            text = f"the model stays: '{request.name[:SHOWN]}' cannot be selected: {reason.message}"
            if line := self._throttle.line(reason.code, text):
                self._log.warning(line)
        choice = self._selection.choice()
        response.active, response.available = choice.active, list(choice.available)
        if not response.error_code:
            self._log.info(f"the model '{choice.active}' answers now, {time.monotonic() - started:.1f} s after it was selected")
        return response

    def _list(self, request: ListModels.Request, response: ListModels.Response) -> ListModels.Response:
        choice = self._selection.choice()
        response.active, response.available = choice.active, list(choice.available)
        if not choice.active:
            response.error_code, response.error_msg = int(ErrorCode.NOT_ACTIVE), "no model is loaded"
        return response
