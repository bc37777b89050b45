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
# The image's files are read-only for who runs it, so bytecode is made now or at every start anew.
# Unchecked: nothing changes below TARGET, and no time stamp is compared. Some packages carry
# templates and old syntax in *.py, which cannot be compiled and are not imported.
"$target/bin/python" -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$target/lib" || true
# Isolated: what is asked about is what was installed, not the folder this is called from.
"$target/bin/python" -I -c 'import importlib.util, os, sys; sys.exit(not os.path.exists(
    importlib.util.find_spec("pipeline.cli").cached))' || {
    echo "install.sh: the bytecode of dladiff was not compiled" >&2
    exit 1
}
"$target/bin/dladiff" --version
