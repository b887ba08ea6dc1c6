"""The model package on TensorRT: engines built once for each machine, and what runs them. Needs no torch and no pycuda."""
