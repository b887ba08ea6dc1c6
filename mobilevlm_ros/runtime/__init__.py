"""A model package, a picture and a prompt in; tokens out. Knows no ROS, no torch and no tasks."""

import os

# ONNX Runtime 1.29 and later report to their maker over the network unless this is set before they are loaded (its Privacy.md).
# A robot's pictures are asked about in places where nothing may call home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
