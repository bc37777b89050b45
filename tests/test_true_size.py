"""The benchmark for a first GPU runs here too, with a small autoencoder in place of a real one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from benchmarks import true_size
from benchmarks.published_models import AUTOENCODERS, Published

ROOT = Path(__file__).resolve().parents[1]


def small() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(32,), norm_num_groups=8, sample_size=64)


@pytest.mark.timeout(300)
def test_the_command_protects_against_an_autoencoder_of_random_weights(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(AUTOENCODERS, "sd15", Published("small", small, 64))
    overrides = ("loop.num_steps=4", "loop.finishing_steps=1")
    argv = ["true_size", "--photos", "1", *(part for one in overrides for part in ("--set", one))]
    monkeypatch.setattr(sys, "argv", argv)
    true_size.main()
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    # Three of four steps look through an autoencoder, and so does the measurement.
    assert found["vae_passes"] > 3
    assert found["seconds"]
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert 0.1 < found["peak_gib"] <= found["peak_process_gib"] + 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_script_for_a_gpu_says_what_to_run_without_one() -> None:
    script = ["sh", str(ROOT / "benchmarks" / "on_a_gpu.sh")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 1
    assert "python -m benchmarks.true_size" in done.stderr
