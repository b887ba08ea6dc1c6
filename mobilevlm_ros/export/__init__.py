"""From a checkpoint to a model package: ONNX graphs, embedding table, tokenizer, manifest.

Needs torch and onnx. Reads through `checkpoint`, writes what `runtime.package` opens, and checks the one against the other.
"""
