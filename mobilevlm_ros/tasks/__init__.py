"""Tasks: questions in, typed results out.

Each task is a function that blocks its caller until the engine has answered and may be called from any thread. A request that
could not be started raises VlmError; one that ended on the way comes back as a result with its `error` set and the text so far.
"""

from mobilevlm_ros.tasks.ask import ask, chat
from mobilevlm_ros.tasks.classify import classify
from mobilevlm_ros.tasks.describe_region import describe_region
from mobilevlm_ros.tasks.ground import ground
from mobilevlm_ros.tasks.results import Answer, Classification, Grounding, Region
from mobilevlm_ros.tasks.settings import Settings

__all__ = [
    "Answer",
    "Classification",
    "Grounding",
    "Region",
    "Settings",
    "ask",
    "chat",
    "classify",
    "describe_region",
    "ground",
]
