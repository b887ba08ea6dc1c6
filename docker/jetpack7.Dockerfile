# syntax=docker/dockerfile:1
# The node on a Jetson with JetPack 7: Ubuntu 24.04, Python 3.12, ROS 2 Jazzy, TensorRT 10.13 to 11.4.
#
#   docker build -f docker/jetpack7.Dockerfile -t mobilevlm:jetpack7 .
#   docker run --rm --runtime nvidia mobilevlm:jetpack7 mobilevlm doctor --jetson --quick
#
# Never built: no Jetson was at hand. A linter and tests read it. Build it on the Jetson, from the repository's root.
# From JetPack 7 on there is no image of L4T's own: a Jetson runs NVIDIA's images for 64-bit ARM servers (an Orin from JetPack 7.2 on).
# Take a tag whose CUDA is not newer than JetPack's.
ARG BASE=nvcr.io/nvidia/tensorrt:26.04-py3
FROM ${BASE}

ARG DEBIAN_FRONTEND=noninteractive
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]

ADD https://raw.githubusercontent.com/ros/rosdistro/master/ros.key /usr/share/keyrings/ros-archive-keyring.gpg
# The distribution's repositories keep no older versions that could be named here. OpenCV stays out: JetPack's own and the one that
# ROS 2 asks for exclude each other; the node needs neither for usual image encodings.
# hadolint ignore=DL3008
RUN chmod 644 /usr/share/keyrings/ros-archive-keyring.gpg \
 && echo "deb [arch=$(dpkg --print-architecture) signed-by=/usr/share/keyrings/ros-archive-keyring.gpg]" \
      "http://packages.ros.org/ros2/ubuntu noble main" > /etc/apt/sources.list.d/ros2.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      build-essential \
      cmake \
      python3-colcon-common-extensions \
      python3-dev \
      python3-venv \
      ros-jazzy-diagnostic-msgs \
      ros-jazzy-ros-base \
      ros-jazzy-tf2-ros-py \
      ros-jazzy-vision-msgs \
      ros-jazzy-visualization-msgs \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mobilevlm
COPY requirements/jetson.txt requirements/constraints.txt requirements/
# TensorRT and rclpy are the system's. The image's own list of versions does not hold in the environment.
RUN /usr/bin/python3 -m venv --system-site-packages venv \
 && PIP_CONSTRAINT='' venv/bin/python -m pip install --no-cache-dir -r requirements/jetson.txt

COPY msg src/mobilevlm_msgs
COPY package.xml setup.cfg setup.py src/mobilevlm_ros/
COPY resource src/mobilevlm_ros/resource
COPY launch src/mobilevlm_ros/launch
COPY config src/mobilevlm_ros/config
COPY models/nano/package src/mobilevlm_ros/models/nano/package
COPY models/nano/calibration src/mobilevlm_ros/models/nano/calibration
COPY mobilevlm_ros src/mobilevlm_ros/mobilevlm_ros
RUN . /opt/ros/jazzy/setup.bash \
 && . venv/bin/activate \
 && python3 -m colcon build --base-paths src \
 && rm -rf build log src

COPY --chmod=755 docker/entrypoint.sh /opt/mobilevlm/entrypoint.sh
ENTRYPOINT ["/opt/mobilevlm/entrypoint.sh"]
CMD ["ros2", "launch", "mobilevlm_ros", "mobilevlm.launch.py", "preset:=jetson", "model:=nano"]
