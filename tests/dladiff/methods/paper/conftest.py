"""Half the views of a photo, so that the few steps of these tests meet each of them."""

from dataclasses import replace

import pytest

from dladiff.config import MethodSettings
from dladiff.methods.photo_latents import Looks


@pytest.fixture(autouse=True)
def _few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    every = Looks.of

    def few(method: MethodSettings) -> Looks:
        looks = every(method)
        return replace(looks, num_views=min(looks.num_views, 4))

    monkeypatch.setattr(Looks, "of", few)
