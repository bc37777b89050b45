#!/usr/bin/env bash
# Installs dladiff with the exact, hashed versions of requirements.lock into a new environment: the
# steps of the image, which a test runs in an empty folder.
#
#   deploy/install.sh TARGET       e.g. /opt/dladiff; TARGET/bin/dladiff is the command
set -euo pipefail

target=${1:?usage: deploy/install.sh TARGET}
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "install.sh: $python is not Python 3.11 to 3.13; PYTHON=/path/to/python3.11 names another" >&2
    exit 1
}
"$python" -m venv "$target"
pip=("$target/bin/python" -m pip --disable-pip-version-check --quiet)
# Every archive must have a known hash; one that the index replaced is refused.
"${pip[@]}" install --no-compile --require-hashes --requirement "$source/deploy/requirements.lock"
"${pip[@]}" install --no-compile --no-deps --no-build-isolation "$source"
"${pip[@]}" check
"$target/bin/dladiff" --version
