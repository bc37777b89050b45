"""The method as a worker loads it: equal bytes in every process, no import that it spares."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage.data import astronaut

from dladiff.results import Photo
from pipeline.config import load_config
from pipeline.worker.protector import load_protector
from pipeline.worker.settings import WorkerSettings

METHOD = load_config(
    "zero-shot",
    overrides=[
        "threads=1",
        "loop.num_steps=6",
        "recognisers=[{name: sface, kind: sface}]",
    ],
)


def protected_photo() -> str:
    """Digest of the protected bytes of a real photo, and what was measured of them, to the bit."""
    protect = load_protector(WorkerSettings("", "", METHOD, "", "", ""))
    photo = Photo("1", astronaut()[0:400, 60:460].copy())
    (result,) = protect([photo], [], METHOD.method, lambda *_: None).photos
    assert result.image is not None
    cosines = [(cosine.before, cosine.after) for cosine in result.identity_cosines]
    return f"{hashlib.sha256(result.image.tobytes()).hexdigest()} {cosines}"


@pytest.mark.slow
def test_threads_that_the_environment_offers_change_nothing_and_no_diffusion_is_imported() -> None:
    """With ``threads=1``, and layer 1 disabled: another process, told to use four threads."""
    program = f"import sys; from {__name__} import protected_photo; print(protected_photo()); "
    child = subprocess.Popen(
        [sys.executable, "-c", program + "print('diffusers' in sys.modules)"],
        env={**os.environ, "OMP_NUM_THREADS": "4", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    here = protected_photo()
    said, _ = child.communicate()
    assert said.splitlines() == [here, "False"]


UP_TO_THE_FIRST_STEP = """
import sys
import numpy as np
from PIL import Image
from dladiff.results import Photo
from pipeline.config import load_config
from pipeline.worker.protector import load_protector
from pipeline.worker.settings import WorkerSettings

def hear(stage, fraction):
    heavy = {"diffusers", "pandas", "ray", "scipy", "skimage", "sympy", "transformers"}
    print(stage, sorted(heavy & {*sys.modules}))
    sys.exit()

config = load_config("zero-shot", overrides=["threads=1"])
protect = load_protector(WorkerSettings("", "", config, "", "", ""))
protect([Photo("1", np.asarray(Image.open(sys.argv[1])).copy())], [], config.method, hear)
"""


@pytest.mark.slow
def test_the_first_step_waits_for_no_import_that_it_does_not_need(tmp_path: Path) -> None:
    photo = tmp_path / "1.png"
    Image.fromarray(astronaut()[0:256, 96:352]).save(photo)
    done = subprocess.run(
        [sys.executable, "-c", UP_TO_THE_FIRST_STEP, str(photo)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "layer2 []", done.stderr
