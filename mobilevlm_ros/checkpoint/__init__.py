"""What MobileVLM is: its configuration, its PyTorch modules, and the reading and writing of checkpoints in the released layout.

Needs torch and transformers, and is used to convert, to train and to check; a robot that runs a model package never imports it.
Knows nothing of ONNX, of model packages and of ROS.
"""

import logging
import os

# OpenMP's threads by default spin while they wait. On a machine with other work, a robot's or a builder's, small matrices then
# take fifty times as long. Has an effect only where torch was not imported before.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# transformers imports torchao where it is installed, which complains of kernels for other processors and of what torch has now.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
