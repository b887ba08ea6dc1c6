"""Where the things of a picture are in space: depth images, lenses, the surface inside a box, and changes of frame.

Arithmetic on numbers and on messages' fields. Knows no ROS, no topics, no tf2 and no model.
"""
