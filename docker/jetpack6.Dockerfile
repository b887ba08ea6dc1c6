# syntax=docker/dockerfile:1
# The node on a Jetson with JetPack 6: Ubuntu 22.04, Python 3.10, ROS 2 Humble, TensorRT 10.3.
#
#   docker build -f docker/jetpack6.Dockerfile -t mobilevlm:jetpack6 .
#   docker run --rm --runtime nvidia mobilevlm:jetpack6 mobilevlm doctor --jetson --quick
#
# Never built: no Jetson was at hand. A linter and tests read it. Build it on the Jetson, from the repository's root.
# The tag is that of the release in /etc/nv_tegra_release, as far as NVIDIA has published one; r36.4.0 serves JetPack 6.1 and 6.2.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

ARG DEBIAN_FRONTEND=noninteractive
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]

ADD https://raw.githubusercontent.com/ros/rosdistro/master/ros.key /usr/share/keyrings/ros-archive-keyring.gpg
# The distribution's repositories keep no older versions that could be named here. OpenCV stays out: JetPack's own and the one that
# ROS 2 asks for exclude each other; the node needs neither for usual image encodings.
# hadolint ignore=DL3008
RUN chmod 644 /usr/share/keyrings/ros-archive-keyring.gpg \
 && echo "deb [arch=$(dpkg --print-architecture) signed-by=/usr/share/keyrings/ros-archive-keyring.gpg]" \
      "http://packages.ros.org/ros2/ubuntu jammy main" > /etc/apt/sources.list.d/ros2.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      build-essential \
      cmake \
      python3-colcon-common-extensions \
      python3-dev \
      python3-venv \
      ros-humble-diagnostic-msgs \
      ros-humble-ros-base \
      ros-humble-tf2-ros-py \
      ros-humble-vision-msgs \
      ros-humble-visualization-msgs \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mobilevlm
COPY requirements/jetson.txt requirements/constraints.txt requirements/
# TensorRT and rclpy are the system's.
RUN /usr/bin/python3 -m venv --system-site-packages venv \
 && venv/bin/python -m pip install --no-cache-dir -r requirements/jetson.txt

COPY msg src/mobilevlm_msgs
COPY package.xml setup.cfg setup.py src/mobilevlm_ros/
COPY resource src/mobilevlm_ros/resource
COPY launch src/mobilevlm_ros/launch
COPY config src/mobilevlm_ros/config
COPY models/nano/package src/mobilevlm_ros/models/nano/package
COPY models/nano/calibration src/mobilevlm_ros/models/nano/calibration
COPY mobilevlm_ros src/mobilevlm_ros/mobilevlm_ros
RUN . /opt/ros/humble/setup.bash \
 && . venv/bin/activate \
 && python3 -m colcon build --base-paths src \
 && rm -rf build log src

COPY --chmod=755 docker/entrypoint.sh /opt/mobilevlm/entrypoint.sh
ENTRYPOINT ["/opt/mobilevlm/entrypoint.sh"]
CMD ["ros2", "launch", "mobilevlm_ros", "mobilevlm.launch.py", "preset:=jetson", "model:=nano"]
