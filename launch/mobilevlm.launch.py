"""Starts the MobileVLM node: ros2 launch mobilevlm_ros mobilevlm.launch.py model:=FOLDER image:=/camera/image_raw

An argument that is left empty leaves its parameter to `params_file`.
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mobilevlm_ros.ros.dds import profile_variables
from mobilevlm_ros.ros.shared_files import find

ARGUMENTS = (
    ("model", "", "folder of the model package; 'nano' is the small one that ships with the package"),
    ("image", "image", "topic of the camera's raw pictures; compressed ones are looked for below it"),
    ("namespace", "", "namespace of the node"),
    ("params_file", "", "YAML file with parameters; empty: config/mobilevlm.yaml of the package"),
    ("autostart", "", "true: configure and activate the node by itself"),
    ("threads", "", "processor threads for the model; 0: one per physical core"),
    ("use_sim_time", "false", "true: take the time from /clock, as for a bag that is played with --clock"),
    ("respawn", "false", "true: start the node again when it dies"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
)
READ = {"autostart": lambda text: text.lower() == "true", "threads": int, "model": str}


def start_node(context):
    """Makes the node's action from the arguments' values."""
    said = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides = {name: read(said[name]) for name, read in READ.items() if said[name]}
    overrides["use_sim_time"] = said["use_sim_time"].lower() == "true"
    return [
        Node(
            package="mobilevlm_ros",
            executable="mobilevlm_node",
            name="mobilevlm",
            namespace=said["namespace"],
            parameters=[said["params_file"] or str(find("config/mobilevlm.yaml")), overrides],
            remappings=[("image", said["image"])],
            arguments=["--ros-args", "--log-level", said["log_level"]],
            additional_env=profile_variables(os.environ),
            respawn=said["respawn"].lower() == "true",
            respawn_delay=1.0,
            output="screen",
        )
    ]


def generate_launch_description():
    """Returns the description: the arguments, and the node made from them."""
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
