# find_python ROOT: prints the command of the Python that set-up runs with, or says in one line why there is none.
# Candidates are run, not looked up: a shim can be on PATH and still start nothing.

# Prints 2 for a Python that has all that set-up needs, 1 for one of a usable version that lacks something, and fails otherwise.
python_rank() {
  "$1" - "${ROS_DISTRO:-}" 2>/dev/null <<'PY'
import importlib.util
import pathlib
import sys
import sysconfig

if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit(1)
parts = [importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")]
parts.append(pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())
if sys.argv[1]:
    parts.append(importlib.util.find_spec("rclpy") is not None)
print(2 if all(parts) else 1)
PY
}

find_python() {
  local root=$1 candidate rank usable=""
  if [ -n "${PYTHON:-}" ]; then
    python_rank "$PYTHON" >/dev/null && { printf '%s\n' "$PYTHON"; return 0; }
    echo "error: PYTHON=$PYTHON does not start a Python 3.10, 3.11 or 3.12" >&2
    return 1
  fi
  for candidate in "$root/.venv/bin/python" python3 python3.12 python3.11 python3.10 /usr/bin/python3; do
    rank=$(python_rank "$candidate") || continue
    [ "$rank" = 2 ] && { printf '%s\n' "$candidate"; return 0; }
    [ -n "$usable" ] || usable=$candidate
  done
  if [ -z "$usable" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "No Python 3.10, 3.11 or 3.12 here: installing the system's python3" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y python3 python3-venv python3-dev; } >/dev/null 2>&1 || true
    python_rank /usr/bin/python3 >/dev/null && usable=/usr/bin/python3
  fi
  [ -n "$usable" ] && { printf '%s\n' "$usable"; return 0; }
  echo "error: no Python 3.10, 3.11 or 3.12 was found; install one (python3 python3-venv python3-dev) or name it: PYTHON=/path/to/python3" >&2
  return 1
}
