"""The environment in which programs use ROS 2 from this repository, said once: as variables and as a shell file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_HEADER = """\
# Written by tools/bootstrap.py. Source it in a shell of your own to use ROS 2 from this folder:  . .venv/ros_env.sh
_mobilevlm_prepend() { # NAME VALUE: puts VALUE in front of the path list NAME, unless it is in it
  eval "_mobilevlm_list=\\${$1:-}"
  case ":$_mobilevlm_list:" in
    *":$2:"*) ;;
    *) export "$1=$2${_mobilevlm_list:+:$_mobilevlm_list}" ;;
  esac
}
_mobilevlm_default() { # NAME VALUE: sets NAME unless the user has
  eval "_mobilevlm_list=\\${$1:-}"
  [ -n "$_mobilevlm_list" ] || export "$1=$2"
}
"""
_FOOTER = "unset -f _mobilevlm_prepend _mobilevlm_default\nunset _mobilevlm_list\n"


class Rule(Enum):
    """What happens to a value that the user's environment has already."""

    SET = "set"
    PREPEND = "prepend"
    DEFAULT = "default"


@dataclass(frozen=True)
class Variable:
    name: str
    value: str
    rule: Rule


def wheel_variables(venv: Path, root: Path) -> list[Variable]:
    """Variables for ROS 2 Jazzy from wheels in `venv`.

    The libraries lie in the environment's lib/ and beside the Python packages in folders named ros_*.libs; the loader finds
    neither by itself.
    """
    libraries = sorted(venv.glob("lib/python3.*/site-packages/ros_*.libs"))
    variables = [Variable("LD_LIBRARY_PATH", str(folder), Rule.PREPEND) for folder in libraries]
    variables += [
        Variable("LD_LIBRARY_PATH", str(venv / "lib"), Rule.PREPEND),
        Variable("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1", Rule.SET),
        Variable("ROS_DISTRO", "jazzy", Rule.SET),
        Variable("ROS_VERSION", "2", Rule.SET),
        Variable("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp", Rule.SET),
        Variable("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", Rule.DEFAULT),
    ]
    return variables + _common_variables(venv, root)


def installed_variables(venv: Path, root: Path, distro: str) -> list[Variable]:
    """Variables for a ROS 2 installation that is sourced already; `venv` holds what it lacks."""
    if distro == "humble":
        discovery = Variable("ROS_LOCALHOST_ONLY", "1", Rule.DEFAULT)
    else:
        discovery = Variable("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", Rule.DEFAULT)
    return [Variable("LD_LIBRARY_PATH", str(venv / "lib"), Rule.PREPEND), discovery, *_common_variables(venv, root)]


def _common_variables(venv: Path, root: Path) -> list[Variable]:
    profile = str(root / "config" / "fastdds_large_images.xml")
    return [
        Variable("VIRTUAL_ENV", str(venv), Rule.SET),
        Variable("PATH", str(venv / "bin"), Rule.PREPEND),
        Variable("AMENT_PREFIX_PATH", str(venv), Rule.PREPEND),
        Variable("CMAKE_PREFIX_PATH", str(venv), Rule.PREPEND),
        # ONNX Runtime reports its use over the network by default; a robot does not.
        Variable("ORT_DISABLE_TELEMETRY", "1", Rule.DEFAULT),
        Variable("ROS_LOG_DIR", str(venv / "ros_log"), Rule.DEFAULT),
        # Fast DDS has renamed the variable; each name is read by one of the versions that are in use.
        Variable("FASTRTPS_DEFAULT_PROFILES_FILE", profile, Rule.DEFAULT),
        Variable("FASTDDS_DEFAULT_PROFILES_FILE", profile, Rule.DEFAULT),
    ]


def apply(variables: list[Variable], environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `variables` in it."""
    result = dict(environment)
    for variable in variables:
        old = result.get(variable.name, "")
        if variable.rule is Rule.SET or not old:
            result[variable.name] = variable.value
        elif variable.rule is Rule.PREPEND and variable.value not in old.split(os.pathsep):
            result[variable.name] = variable.value + os.pathsep + old
    return result


def shell_text(variables: list[Variable]) -> str:
    """The same as `apply`, as a file that sh, bash and zsh can source, any number of times."""
    lines = []
    for variable in variables:
        value = shlex.quote(variable.value)
        if variable.rule is Rule.SET:
            lines.append(f"export {variable.name}={value}")
        else:
            lines.append(f"_mobilevlm_{variable.rule.value} {variable.name} {value}")
    return _HEADER + "\n".join(lines) + "\n" + _FOOTER
