"""MobileVLM for ROS 2: language answers and referring-expression groundings about what a robot's cameras see.

The layers, from the inside out: `runtime` turns a model package, a picture and a prompt into tokens; `tasks` turns questions into
prompts and tokens into typed results; `ros` puts the tasks on a robot's graph. `checkpoint` and `export` make model packages and
are the only parts that need torch.
"""

__version__ = "0.1.0"
