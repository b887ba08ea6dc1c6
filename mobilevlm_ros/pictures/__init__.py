"""Pictures in and out, beside live cameras: files, folders, stdin, videos and recorded bags as frames; boxes and words drawn in.

Knows no ROS, no model and no tasks.
"""

from mobilevlm_ros.pictures.files import picture_files, read_picture, read_stored_picture

__all__ = ["picture_files", "read_picture", "read_stored_picture"]
