"""The example of library use, and the names that the package offers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import dladiff
from examples.protect_photos import protect_folder


def test_the_example_protects_a_real_photo_within_the_budget(
    tmp_path: Path, astronaut: np.ndarray
) -> None:
    source = tmp_path / "ann"
    source.mkdir()
    Image.fromarray(astronaut[:300, 100:400]).save(source / "1.png")
    method = dladiff.preset_settings("zero-shot").changed(
        "loop.num_steps=8", "loop.step_size_levels=3"
    )
    protector = dladiff.Protector(method, cache_dir=tmp_path)
    (result,) = protect_folder(source, tmp_path / "protected", protector)
    assert result.status == "protected"
    with Image.open(tmp_path / "protected" / "1.png.png") as saved:
        change = np.abs(np.array(saved).astype(int) - astronaut[:300, 100:400])
    assert 0 < change.max() <= 11
    assert [cosine.encoder for cosine in result.identity_cosines] == ["sface", "dlib"]
    for cosine in result.identity_cosines:
        assert cosine.after < cosine.before - 0.1


def test_every_offered_name_exists_and_importing_the_package_loads_no_torch() -> None:
    program = (
        "import sys, dladiff; assert dladiff.METHOD_VERSION and dladiff.__version__;"
        "assert 'torch' not in sys.modules; assert dir(dladiff) == sorted(dladiff.__all__);"
        "print([name for name in dladiff.__all__ if getattr(dladiff, name, None) is None])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
