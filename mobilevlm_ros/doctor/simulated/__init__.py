"""Stand-ins for TensorRT and CUDA on a machine without either.

They prove the bookkeeping of what runs an engine: addresses, sizes, shapes, the order of calls, captured graphs, memory that is
given back. They prove nothing about TensorRT itself: ONNX Runtime computes the graphs on the processor.
"""
