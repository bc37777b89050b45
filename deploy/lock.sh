#!/usr/bin/env bash
# Writes requirements.lock: the versions of constraints.txt with the hashes of all their archives,
# for every supported Python. Run it after constraints.txt changed; needs uv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PWD/.venv/bin:$PATH"
uv pip compile --quiet --universal --python-version 3.11 --no-annotate --system-certs \
    --generate-hashes --constraint constraints.txt --custom-compile-command deploy/lock.sh \
    --output-file deploy/requirements.lock "$@" pyproject.toml
