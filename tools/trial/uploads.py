"""Photos that arrive in a bucket during a trial: crops of scikit-image's ``astronaut`` (NASA)."""

import io
import threading
from collections.abc import Iterator
from typing import Any

import boto3
from PIL import Image, ImageOps
from skimage.data import astronaut

PEOPLE = ("amal", "bela", "chen")
SIDE_PX = 224


class Uploads(threading.Thread):
    """Somebody who puts photos of three people into a bucket, a few at once and then one by one."""

    def __init__(self, bucket: str, num_photos: int, at_once: int, every_s: float) -> None:
        """Uploads nothing before ``start``.

        Args:
            bucket: Exists already.
            num_photos: In all.
            at_once: So many of them come first, without a pause.
            every_s: Seconds between the others.
        """
        super().__init__(daemon=True)
        self._bucket, self._num_photos = bucket, num_photos
        self._at_once, self._every_s = at_once, every_s
        self._stopped = threading.Event()
        self.first_are_there = threading.Event()

    def run(self) -> None:
        client: Any = boto3.client("s3")
        for number, (key, photo) in enumerate(photos(self._num_photos)):
            if number >= self._at_once:
                self.first_are_there.set()
                if self._stopped.wait(self._every_s):
                    break
            client.put_object(Bucket=self._bucket, Key=key, Body=photo)
        self.first_are_there.set()
        client.close()

    def stop(self) -> None:
        """Lets no further photo come."""
        self._stopped.set()
        self.join()


def photos(number: int) -> Iterator[tuple[str, bytes]]:
    """So many different photos, as ``<person>/<number>.jpg`` and its bytes."""
    image = Image.fromarray(astronaut())
    for index in range(number):
        left, top = 100 + 5 * index, 2 * index
        photo = image.crop((left, top, left + SIDE_PX, top + SIDE_PX))
        if index % 2:
            photo = ImageOps.mirror(photo)
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=92)
        yield f"people/{PEOPLE[index % len(PEOPLE)]}/{index}.jpg", buffer.getvalue()
