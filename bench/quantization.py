"""What storing a checkpoint in fewer bits costs, scheme by scheme: from this the converter's defaults were chosen.

`python -m bench.quantization models/nano/checkpoint --json`. Each scheme is converted for real and measured on the calibration's
held-back examples; prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mobilevlm_ros.export.convert import ConvertOptions, convert, read_phrasings
from mobilevlm_ros.export.quantization import HEAD_MAPS, Rounding
from mobilevlm_ros.runtime.manifest import Phrasings, Precision

_INT4, _GPTQ, _NEAREST = Precision.INT4, Rounding.GPTQ, Rounding.NEAREST
SCHEMES = {
    "int8": (Precision.INT8, _NEAREST, ()),
    "int4 nearest, head too": (_INT4, _NEAREST, ()),
    "int4 nearest": (_INT4, _NEAREST, HEAD_MAPS),
    "int4 gptq, head too": (_INT4, _GPTQ, ()),
    "int4 gptq": (_INT4, _GPTQ, HEAD_MAPS),
    "int4 gptq, first layer int8": (_INT4, _GPTQ, (*HEAD_MAPS, "model.layers.0.*")),
    "int4 gptq, down int8": (_INT4, _GPTQ, (*HEAD_MAPS, "*.down_proj.weight")),
    "int4 gptq, v int8": (_INT4, _GPTQ, (*HEAD_MAPS, "*.v_proj.weight")),
    "int4 gptq, q and k int8": (_INT4, _GPTQ, (*HEAD_MAPS, "*.q_proj.weight", "*.k_proj.weight")),
}


@dataclass(frozen=True)
class Row:
    """One scheme's figures; bytes of the decoder's file, the rest as in `FidelityReport`."""

    scheme: str
    decoder_bytes: int
    divergence_mean: float
    divergence_max: float
    greedy_agreement: float
    seconds: float


def measure(checkpoint: Path, phrasings: Phrasings, scheme: str, examples: int) -> Row:
    """Converts into a temporary folder and reads the report."""
    precision, rounding, keep = SCHEMES[scheme]
    options = ConvertOptions(precision, phrasings=phrasings, rounding=rounding, keep=keep, examples=examples)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = convert(checkpoint, Path(folder) / "package", options)
        size = (report.package / "decoder.cpu.onnx.data").stat().st_size
    found = report.fidelity
    assert found is not None
    seconds = round(time.perf_counter() - start, 1)
    return Row(scheme, size, found.divergence_mean, found.divergence_max, found.greedy_agreement, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--phrasings", type=Path, help="as for mobilevlm convert")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    phrasings = Phrasings() if args.phrasings is None else read_phrasings(args.phrasings)
    rows = []
    print(f"{'scheme':<30} {'decoder MB':>10} {'KL mean':>9} {'KL max':>8} {'same token':>10}")
    for scheme in SCHEMES:
        print(f"{scheme} ...", end="\r", file=sys.stderr, flush=True)
        row = measure(args.checkpoint, phrasings, scheme, args.examples)
        rows.append(row)
        size = row.decoder_bytes / 1e6
        print(f"{scheme:<30} {size:>10.2f} {row.divergence_mean:>9.5f} {row.divergence_max:>8.3f} {row.greedy_agreement:>10.2%}")
    if args.json:
        print(json.dumps({"checkpoint": args.checkpoint.name, "examples": args.examples, "rows": [asdict(row) for row in rows]}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
