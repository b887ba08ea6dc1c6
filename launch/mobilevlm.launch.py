"""Starts the MobileVLM node: ros2 launch mobilevlm_ros mobilevlm.launch.py model:=FOLDER image:=/camera/image_raw

One model serves several cameras with cameras:=front=/front/image_raw,rear=/rear/image_raw; bag:=FOLDER plays a recording to it.
An argument that is left empty leaves its parameter to the files: `preset`, and over it `params_file`.
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mobilevlm_ros.ros.dds import profile_variables
from mobilevlm_ros.ros.shared_files import find

ARGUMENTS = (
    ("model", "", "folder of the model package; 'nano' is the small one that ships with the package"),
    ("image", "image", "topic of the camera's raw pictures; compressed ones are looked for below it"),
    ("cameras", "", "several cameras in place of `image`, as name=topic,name=topic"),
    ("namespace", "", "namespace of the node"),
    ("preset", "", "cpu or jetson: parameters that suit such a machine"),
    ("params_file", "", "YAML file with parameters; empty: config/mobilevlm.yaml of the package"),
    ("autostart", "", "true: configure and activate the node by itself"),
    ("threads", "", "processor threads for the model; 0: one per physical core"),
    ("use_sim_time", "false", "true: take the time from /clock; a bag that is played here sets it"),
    ("bag", "", "recording to play with its own clock; name its topic with image or cameras"),
    ("bag_delay", "5.0", "seconds before the bag begins, in which the model is loaded"),
    ("respawn", "false", "true: start the node again when it dies"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
)
PRESETS = ("cpu", "jetson")


def is_true(text):
    """Reads an argument's truth value."""
    return text.lower() == "true"


READ = {"autostart": is_true, "threads": int, "model": str}


def camera_topics(text):
    """Reads name=topic,name=topic, where a name alone stands for the topic `<name>/image`; returns the topics by name."""
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    return {name.strip(): topic.strip() or f"{name.strip()}/image" for name, _, topic in pairs}


def parameter_files(said):
    """Returns the files of parameters; a later one has the last word."""
    preset, own = said["preset"], said["params_file"]
    if preset and preset not in PRESETS:
        raise ValueError(f"preset is '{preset}', it must be one of {', '.join(PRESETS)}")
    files = [own] if own else []
    if preset:
        files.insert(0, str(find(f"config/presets/{preset}.yaml")))
    return files if own else [str(find("config/mobilevlm.yaml")), *files]


def start_node(context):
    """Makes the node's action from the arguments' values, and the bag's."""
    said = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides = {name: read(said[name]) for name, read in READ.items() if said[name]}
    overrides["use_sim_time"] = is_true(said["use_sim_time"]) or bool(said["bag"])
    remappings = [("image", said["image"])]
    if cameras := camera_topics(said["cameras"]):
        overrides["cameras"] = list(cameras)
        # As the node names them: a single camera listens on `image`.
        inputs = ["image"] if len(cameras) == 1 else [f"{name}/image" for name in cameras]
        remappings = [(name, topic) for name, topic in zip(inputs, cameras.values()) if name != topic]
    play = ["ros2", "bag", "play", said["bag"], "--clock", "--delay", said["bag_delay"]]
    bag = [ExecuteProcess(cmd=play, output="screen")] if said["bag"] else []
    return [
        *bag,
        Node(
            package="mobilevlm_ros",
            executable="mobilevlm_node",
            name="mobilevlm",
            namespace=said["namespace"],
            parameters=[*parameter_files(said), overrides],
            remappings=remappings,
            arguments=["--ros-args", "--log-level", said["log_level"]],
            additional_env=profile_variables(os.environ),
            respawn=is_true(said["respawn"]),
            respawn_delay=1.0,
            output="screen",
        ),
    ]


def generate_launch_description():
    """Returns the description: the arguments, and the node made from them."""
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
