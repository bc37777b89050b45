#!/bin/sh
# The first day with a GPU: its tests, then seconds and memory of the presets with Stable Diffusion
# 1.5's autoencoder (random weights) beside what was counted. At most 8 minutes; after `make setup`:
#
#     sh benchmarks/on_a_gpu.sh [FILE]
#
# writes a JSON line per preset to FILE (results/on_a_gpu.jsonl) and prints it.
set -eu
cd "$(dirname "$0")/.."
file=${1:-results/on_a_gpu.jsonl}
python=.venv/bin/python
$python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
    echo "no CUDA device here: on a CPU, python -m benchmarks.true_size --set loop.num_steps=3" >&2
    exit 1
}
timeout 180 $python -m pytest tests/gpu -q
timeout 280 $python -m benchmarks.true_size --preset balanced --preset discreet --preset fast \
    | tee "$file"
