"""Half the views of a photo, so that the few steps of these tests meet each of them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dladiff.config import MethodSettings
from dladiff.methods.photo_latents import Looks


@pytest.fixture(autouse=True, scope="module")
def _few_views() -> Iterator[None]:
    """Of a module, since what a module's own fixtures protect has to have as many."""
    every = Looks.of

    def few(method: MethodSettings) -> Looks:
        looks = every(method)
        return replace(looks, num_views=min(looks.num_views, 4))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Looks, "of", few)
        yield
