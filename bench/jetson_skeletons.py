"""Makes the skeletons from which `mobilevlm doctor --jetson` makes packages with made-up weights.

    python -m bench.jetson_skeletons

Rewrites the archives in `mobilevlm_ros/doctor/` from the converter as it is now; a test fails where one is older. One is small,
for what comes out; two have the full size of MobileVLM-V2-1.7B, for how fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.cpu_files import CHECKPOINT, released_config
from bench.skeleton import build_skeleton
from mobilevlm_ros.bench.synthetic import Skeleton
from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.doctor.jetson_subjects import Shipped
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.hub.catalogue import find
from mobilevlm_ros.models import NANO
from mobilevlm_ros.runtime.manifest import Precision


def small_config() -> MobileVlmConfig:
    """The nano model's sizes, but with maps that blocks of 4-bit weights divide, and heads that TensorRT has kernels for."""
    entry = find(NANO)
    assert entry is not None
    return replace(
        entry.config,
        hidden_size=256,
        intermediate_size=512,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_hidden_layers=2,
    )


def skeletons() -> Iterator[tuple[Shipped, Skeleton]]:
    """Each archive's content."""
    yield Shipped.SMALL_INT4, build_skeleton("small", small_config(), Precision.INT4, Target.ALL)
    yield Shipped.FULL_INT4, build_skeleton(CHECKPOINT, released_config(), Precision.INT4, Target.ALL)
    yield Shipped.FULL_FP16, build_skeleton(CHECKPOINT, released_config(), Precision.FP16, Target.ALL)


def main() -> int:
    for shipped, skeleton in skeletons():
        skeleton.save(shipped.path)
        print(f"{shipped.path.name}: {shipped.path.stat().st_size} bytes, {skeleton.size / 1e9:.2f} GB of weights")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
