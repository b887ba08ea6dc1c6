"""Puts the shipped Fast DDS profile into a process's environment.

With Fast DDS's own settings most large pictures are lost on their way; the profile gives them a shared-memory segment. It has to
be in the environment before a process makes its first ROS node, so launch files and parents set it for the processes they start.
"""

from __future__ import annotations

from collections.abc import Mapping

from mobilevlm_ros.ros.shared_files import find

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Both of them: older releases read the first, newer ones the second."""


def profile_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables to add to an environment: none where the user names a profile of his own."""
    profile = find("config/fastdds_large_images.xml")
    if profile is None or any(name in environment for name in VARIABLES):
        return {}
    return {name: str(profile) for name in VARIABLES}
