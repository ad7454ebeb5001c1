#!/usr/bin/env bash
# Check one GPU machine in under 8 minutes: parity, sharding, two steps of every objective, and speed.
# Usage: gpu_check.sh [--cpu] [--tiny] [--out FOLDER] [--only PART,...] [--minutes N] [--limit SECONDS]
# Leaves FOLDER/gpu_check.json and FOLDER/gpu_check.txt (default gpu_check/). --cpu --tiny is its own smoke test.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || {
  echo "error: $python: no such interpreter" >&2
  echo "hint: make setup, or name one in PYTHON" >&2
  exit 2
}
PYTHONPATH=$root exec "$python" "$root/scripts/gpu_check.py" "$@"
