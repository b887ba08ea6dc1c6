"""The simulated libraries put together, for this process and for those that build engines.

`python -m mobilevlm_ros.doctor.simulated.libraries MODULE:FUNCTION ARGUMENTS...` calls a program's function as if it were on a
Jetson, with the arguments in `sys.argv`; `... --build VERSION ARGUMENTS...` is what that starts to build an engine.
"""

from __future__ import annotations

import importlib
import sys

from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.tensorrt import SimulatedTensorRt
from mobilevlm_ros.runtime.tensorrt.cudart import Cudart
from mobilevlm_ros.runtime.tensorrt.library import Libraries, use_instead

_BUILD = "--build"
NEWEST, OLDEST = "10.16.0", "10.3.0"
"""Versions of TensorRT that take the fused and only the portable decoder."""


def simulated_libraries(version: str = NEWEST, memory: int = 8 << 30) -> tuple[Libraries, SimulatedCuda]:
    """Libraries of a pretended device with so many bytes of memory, and the pretended driver behind them."""
    cuda = SimulatedCuda(memory)
    build = (sys.executable, "-m", "mobilevlm_ros.doctor.simulated.libraries", _BUILD, version)
    return Libraries(SimulatedTensorRt(cuda, version), Cudart(cuda), build), cuda


def main() -> int:
    """Build an engine, or call a program's function with the simulated libraries in the machine's place."""
    if sys.argv[1] == _BUILD:
        from mobilevlm_ros.runtime.tensorrt.build import main as build

        return build(sys.argv[3:], SimulatedTensorRt(SimulatedCuda(), sys.argv[2]))
    use_instead(simulated_libraries()[0])
    module, function = sys.argv[1].split(":")
    sys.argv = sys.argv[1:]
    return int(getattr(importlib.import_module(module), function)() or 0)


if __name__ == "__main__":
    sys.exit(main())
