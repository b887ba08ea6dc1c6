#!/bin/bash
# Runs a command where ROS 2, the packages and their Python environment are known.
set -eo pipefail # not -u: the setup files of ROS 2 read variables that may be unset
. /opt/mobilevlm/venv/bin/activate
. /opt/mobilevlm/install/setup.bash
PATH="/opt/mobilevlm/install/mobilevlm_ros/lib/mobilevlm_ros:$PATH"
exec "$@"
