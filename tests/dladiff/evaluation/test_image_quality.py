"""KID against its definition."""

import numpy as np
import pytest

from dladiff.evaluation.image_quality import KernelDistance, squared_mmd
from dladiff.quality import load_learned_perceptual_distance


@pytest.fixture(scope="module")
def kid() -> KernelDistance:
    network = load_learned_perceptual_distance("cpu")
    assert network is not None
    return KernelDistance(network)


@pytest.fixture
def tiles(astronaut: np.ndarray) -> list[np.ndarray]:
    """Eight squares of one photo."""
    corners = [(top, left) for top in (0, 100) for left in (0, 80, 160, 240)]
    return [np.ascontiguousarray(astronaut[t : t + 96, x : x + 96]) for t, x in corners]


def test_the_squared_mmd_of_few_rows_is_its_definition_written_out() -> None:
    first, second = (
        np.array([[1.0, 3.0], [2.0, 0.0], [1.0, 1.0]]),
        np.array([[0.0, 2.0], [4.0, 2.0]]),
    )
    among_first = np.mean([2.0**3, 3.0**3, 2.0**3])  # x.y / 2 + 1 of the pairs 12, 13, 23
    among_second = 3.0**3
    across = np.mean([4.0**3, 6.0**3, 1.0**3, 5.0**3, 2.0**3, 4.0**3])
    expected = among_first + among_second - 2 * across
    assert squared_mmd(first, second) == pytest.approx(expected)


def test_it_is_zero_on_average_where_both_kinds_are_drawn_alike() -> None:
    rng = np.random.default_rng(0)
    drawn = [squared_mmd(rng.normal(size=(3, 4)), rng.normal(size=(5, 4))) for _ in range(4000)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(len(drawn))


def test_spoilt_images_are_farther_from_photos_than_other_photos_are(
    kid: KernelDistance, tiles: list[np.ndarray]
) -> None:
    noise = np.random.default_rng(0).integers(-60, 61, (4, 96, 96, 3))
    spoilt = [
        (tile + one).clip(0, 255).astype(np.uint8)
        for tile, one in zip(tiles[:4], noise, strict=True)
    ]
    of_photos, of_spoilt = kid.between(tiles[:4], tiles[4:]), kid.between(spoilt, tiles[4:])
    assert of_photos is not None
    assert of_spoilt is not None
    assert of_spoilt > of_photos


def test_one_image_has_no_distance(kid: KernelDistance, tiles: list[np.ndarray]) -> None:
    assert kid.between(tiles[:1], tiles[1:]) is None
