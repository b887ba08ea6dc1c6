"""What another node uses to talk to the MobileVLM node; hides the plumbing of services and actions.

    vlm = VLM(node)
    print(vlm.ask("What is on the table?"))
    for region in vlm.ground("the red mug"):
        print(region.box, region.score)
    for piece in vlm.chat("Tell me more."):
        print(piece, end="", flush=True)

`VLM` blocks, `AsyncVLM` never does: which of them may be used where stands in docs/client.md. Results print as what they say; a
request that does not end well raises `VlmError`, whose `code` says why. Needs neither the model nor the runtime's libraries.
"""

from mobilevlm_ros.client.async_vlm import AsyncVLM
from mobilevlm_ros.client.conversation import Conversation
from mobilevlm_ros.client.errors import ClientUsageError
from mobilevlm_ros.client.locked_action import LockedActionClient
from mobilevlm_ros.client.options import FramePolicy, Options, Priority, Publish
from mobilevlm_ros.client.pending import Pending
from mobilevlm_ros.client.results import Answer, Box, Classification, Finding, Models, Point, Position, Region, Regions
from mobilevlm_ros.client.spinning import spinning
from mobilevlm_ros.client.streams import AsyncChatStream, ChatStream
from mobilevlm_ros.client.vlm import VLM
from mobilevlm_ros.client.watch import Watch, Wishes
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

__all__ = [
    "VLM",
    "Answer",
    "AsyncChatStream",
    "AsyncVLM",
    "Box",
    "ChatStream",
    "Classification",
    "ClientUsageError",
    "Conversation",
    "ErrorCode",
    "Finding",
    "FramePolicy",
    "LockedActionClient",
    "Models",
    "Options",
    "Pending",
    "Point",
    "Position",
    "Priority",
    "Publish",
    "Region",
    "Regions",
    "VlmError",
    "Watch",
    "Wishes",
    "spinning",
]
