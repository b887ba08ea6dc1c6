"""Teaches a MobileVLM something new: a LoRA adapter trained on conversations about pictures, in the official layout.

Knows checkpoints, and the prompts and pictures that the runtime makes; knows nothing of model packages and of ROS.
"""
