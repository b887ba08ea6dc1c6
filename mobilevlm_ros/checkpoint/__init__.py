"""What MobileVLM is: its configuration, its PyTorch modules, and the reading and writing of checkpoints in the released layout.

Needs torch and transformers, and is used to convert, to train and to check; a robot that runs a model package never imports it.
Knows nothing of ONNX, of model packages and of ROS.
"""
