"""The services that add, remove and list standing queries, and the topic `~/standing` on which their answers go out."""

from __future__ import annotations

from collections.abc import Callable

from mobilevlm_msgs.msg import StandingAnswer
from mobilevlm_msgs.srv import AddQuery, ListQueries, RemoveQuery
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.parameters import NodeOptions
from mobilevlm_ros.ros.standing import StandingQueries
from mobilevlm_ros.ros.standing_messages import query_message, query_of
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


class StandingServices:
    """Serves `~/add_query`, `~/remove_query` and `~/list_queries`. Its callbacks wait for nothing."""

    def __init__(self, node: Node, group: CallbackGroup, queries: StandingQueries, options: Callable[[], NodeOptions]) -> None:
        self._queries = queries
        self._options = options
        for kind, name, callback in (
            (AddQuery, "~/add_query", self._add),
            (RemoveQuery, "~/remove_query", self._remove),
            (ListQueries, "~/list_queries", self._list),
        ):
            node.create_service(kind, name, callback, qos_profile=qos.requests(), callback_group=group)

    def _add(self, request: AddQuery.Request, response: AddQuery.Response) -> AddQuery.Response:
        try:
            self._queries.add(query_of(request.query))
        except ValueError as error:
            response.error_code, response.error_msg = int(ErrorCode.BAD_REQUEST), str(error)
        except VlmError as error:
            response.error_code, response.error_msg = int(error.code), error.message
        return response

    def _remove(self, request: RemoveQuery.Request, response: RemoveQuery.Response) -> RemoveQuery.Response:
        try:
            self._queries.remove(request.name)
        except VlmError as error:
            response.error_code, response.error_msg = int(error.code), error.message
        return response

    def _list(self, request: ListQueries.Request, response: ListQueries.Response) -> ListQueries.Response:
        min_change = self._options().standing_min_change
        for standing in self._queries.overview():
            response.queries.append(query_message(standing.query, min_change))
            response.answers.append(standing.last)
        return response


def publisher(node: Node) -> Callable[[StandingAnswer], None]:
    """Creates the topic `~/standing` and returns what publishes on it."""
    created = node.create_publisher(StandingAnswer, "~/standing", qos.result(), qos_overriding_options=qos.overridable())
    publish: Callable[[StandingAnswer], None] = created.publish
    return publish
