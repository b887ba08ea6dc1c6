"""Rounding to 4 bits so that each rounding error is made up for by the columns that follow (GPTQ, arXiv 2210.17323).

The arithmetic is that of the library neural_compressor; this module gives it a matrix and what the matrix was multiplied with.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.linear_weights import BLOCK, BlockWeight, to_blocks

DAMPING = 0.01
"""Share of the mean diagonal that is added to the second moments, so that they can be inverted (the paper's value)."""
_QUANTIZER = {
    "dtype": "int",
    "bits": 4,
    "group_size": BLOCK,
    "sym": True,
    "perchannel": True,
    # The scale of a block is the best of ten between half of its largest value and all of it.
    "mse": True,
    "use_double_quant": False,
    "double_quant_dtype": "int",
    "double_quant_bits": 8,
    "double_quant_sym": True,
    "double_quant_group_size": BLOCK,
}


def require_library() -> None:
    """Raises ExportError in one line if neural_compressor is not installed."""
    if importlib.util.find_spec("neural_compressor") is None:
        remedy = "install mobilevlm_ros[convert], or choose --rounding nearest"
        raise ExportError(f"rounding to 4 bits with error compensation needs the package neural-compressor-pt: {remedy}")


def compensated(matrix: Tensor, moments: Tensor) -> BlockWeight:
    """A matrix float32 [out, in] in 4 bits.

    Args:
        matrix: is not changed.
        moments: float32 [in, in], the sum of x x^T over the inputs x that the matrix is applied to.

    Raises:
        ExportError: the moments are not finite.
    """
    gptq_class = _library()
    if not bool(torch.isfinite(moments).all()):
        raise ExportError("the activations of the calibration pictures are not finite")
    worker = gptq_class(nn.Linear(1, 1, bias=False, device="meta"), matrix)
    worker.quantizer.configure(_QUANTIZER, norm=2.0, grid=20, maxshrink=0.5)
    worker.H = moments.clone()
    scales, _, _, rounded = worker.fasterquant(matrix.clone(), blocksize=BLOCK, percdamp=DAMPING, groupsize=BLOCK)
    return to_blocks(rounded.numpy(), 4, scales.numpy())


def _library() -> Any:
    require_library()
    from neural_compressor.common import set_workspace

    logging.getLogger("neural_compressor").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        # The library makes a folder for files when it is imported, by default in the current one.
        set_workspace(scratch)
        from neural_compressor.torch.algorithms.weight_only.gptq import GPTQ
    return GPTQ
