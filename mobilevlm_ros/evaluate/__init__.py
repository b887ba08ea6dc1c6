"""Evaluation: public benchmarks in, scores and a report out, with the published rules.

`formats/` reads the datasets' own files, `runner.py` asks an engine, `metrics.py` counts, `report.py` writes. Uses the tasks and
the runtime; knows no ROS and no torch.
"""
