"""Makes the skeleton from which `mobilevlm bench --synthetic` makes a model package of full size with made-up weights.

    python -m bench.skeleton

Rewrites the archive in `mobilevlm_ros/bench/` from the converter as it is now; a test fails where the archive is older.
"""

from __future__ import annotations

from pathlib import Path

from bench.catalogue import Shapes, smallest_forms
from bench.cpu_files import CHECKPOINT, released_config
from mobilevlm_ros.bench.synthetic import SHIPPED, Place, Skeleton
from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import expected_shapes
from mobilevlm_ros.export.convert import ConvertOptions, build_graphs, describe, table_dtype
from mobilevlm_ros.export.prefill_builder import Prefill
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import TOKENIZER_NAME

PRECISION = Precision.INT4


def build_skeleton(
    name: str,
    config: MobileVlmConfig,
    precision: Precision = PRECISION,
    target: Target = Target.CPU,
    prefill: Prefill = Prefill.SAME,
) -> Skeleton:
    """The skeleton of a checkpoint with this config, called `name`, with the tokenizer of the model that ships."""
    options = ConvertOptions(precision, name=f"synthetic-{name}-{precision.value}", source="made-up weights", licence="none")
    shapes = Shapes(expected_shapes(config))
    files = {TOKENIZER_NAME: (shipped_package() / TOKENIZER_NAME).read_bytes()}
    weights = {}
    for built in build_graphs(shapes, config, precision, smallest_forms(config, shapes, precision), target, prefill):
        data = f"{built.name}.data"
        files[built.name] = built.builder.model(data, built.opsets).SerializeToString(deterministic=True)
        places = tuple(Place(weight.name, weight.dtype.str, weight.shape, weight.offset) for weight in built.builder.weights())
        if places:
            weights[data] = places
    manifest = describe(Path(name), config, options, ())
    return Skeleton(manifest, files, weights, table_dtype(precision).str)


def released_skeleton() -> Skeleton:
    """The skeleton of MobileVLM-V2-1.7B, with all that the CPU may run."""
    return build_skeleton(CHECKPOINT, released_config(), prefill=Prefill.INT8)


def main() -> int:
    released_skeleton().save(SHIPPED)
    print(f"{SHIPPED.name}: {SHIPPED.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
