"""Checkpoints by name: which are known, where they lie on a model hub, and how they come onto this machine.

Knows files, the hub's client library and the checkpoint's config; knows nothing of torch, ONNX and ROS.
"""
