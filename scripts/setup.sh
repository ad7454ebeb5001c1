#!/usr/bin/env bash
# Create the virtual environment and install astro under constraints.txt. Usage: setup.sh PYTHON VENV
set -euo pipefail
python=$1
venv=$2
# These ask for versions that do not go together with transformers 5 and numpy 2, or for a second OpenCV; what their runnable parts need is in the
# extra "vbench".
without_dependencies="vbench pyiqa openai-clip scenedetect"

# Ray has no wheel for some machines; without it `--executor ray` says so, and its tests are skipped.
optional="ray"
skipped() { echo "Ray could not be installed: --executor ray is not available here" >&2; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: $python: Python 3.11 or newer is needed" >&2
  echo "hint: make setup PYTHON=python3.11" >&2
  exit 2
fi
if command -v uv >/dev/null 2>&1; then
  [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
  # uv does not look into pip's local wheel folders; where torch comes from one of them, pip is asked instead
  if uv pip install --quiet --python "$venv/bin/python" -c constraints.txt -e '.[dev,vbench]' &&
    uv pip install --quiet --python "$venv/bin/python" -c constraints.txt --no-deps $without_dependencies; then
    uv pip install --quiet --python "$venv/bin/python" -c constraints.txt $optional || skipped
    exit 0
  fi
  echo "uv could not install; trying pip" >&2
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m ensurepip --upgrade >/dev/null 2>&1 || true
pip_install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@" 2> >(grep -v '^WARNING: Location' >&2)
}
pip_install -e '.[dev,vbench]'
pip_install --no-deps $without_dependencies
pip_install $optional || skipped
