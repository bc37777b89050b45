"""A look at INPUT and OUTPUT from outside: boto3, pyarrow and Pillow, and nothing of ours.

What it knows of OUTPUT stands in docs/bucket.md. A fault of the code that writes and reads OUTPUT
cannot hide itself here.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_MOST_MEAN_CHANGE = 12.0
"""Levels of 255: another photo differs by far more."""


@dataclass
class Bucket:
    """Objects of one bucket below a prefix."""

    name: str

    def __post_init__(self) -> None:
        self._client: Any = boto3.client("s3")

    def sizes(self, prefix: str) -> dict[str, int]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def uri(self, key: str) -> str:
        return f"s3://{self.name}/{key}"


def audit(bucket: Bucket, photos: str, output: str) -> list[str]:
    """What is wrong, a line each; nothing: every photo was decided once and is served whole.

    Args:
        bucket: Holds both.
        photos: Prefix of INPUT, with its slash.
        output: Prefix of OUTPUT, with its slash.
    """
    sources = {bucket.uri(key): key for key in bucket.sizes(photos)}
    objects = bucket.sizes(output)
    rows = _rows(bucket, objects, output)
    decided = [row for row in rows if row["status"] != "deferred"]
    times = Counter(row["source_uri"] for row in decided)
    wrong = [f"{uri}: {times[uri]} decisions" for uri in sources if times[uri] != 1]
    wrong += [f"{uri}: decided, and not in INPUT" for uri in times if uri not in sources]
    wrong += [f"{row['source_uri']}: {row['status']}" for row in decided if not row["output_uri"]]
    served = [row for row in decided if row["output_uri"] and row["source_uri"] in sources]
    for row in served:
        wrong += _wrong_with(row, bucket, sources[row["source_uri"]], objects)
    named = {row["output_uri"] for row in served}
    images = [key for key in objects if key.startswith(f"{output}images/")]
    wrong += [f"{key}: no row names it" for key in images if bucket.uri(key) not in named]
    wrong += [f"{uri}: two rows name it" for uri in _twice(row["output_uri"] for row in served)]
    staged = [key for key in objects if "/runs/" in key and "/data/" in key]
    wrong += [f"{key}: left behind" for key in staged]
    return wrong + _wrong_with_runs(objects, output)


def _rows(bucket: Bucket, objects: dict[str, int], output: str) -> list[dict[str, Any]]:
    tables = [
        pq.read_table(pa.BufferReader(bucket.read(key)))
        for key in objects
        if key.startswith(f"{output}manifest/") and key.endswith(".parquet")
    ]
    return [row for table in tables for row in table.to_pylist()]


def _wrong_with(
    row: dict[str, Any], bucket: Bucket, source_key: str, objects: dict[str, int]
) -> list[str]:
    """A served photo: the bytes that the row promises, of the photo that it names."""
    uri, key = row["source_uri"], row["output_uri"].removeprefix(bucket.uri(""))
    if key not in objects:
        return [f"{uri}: its file is missing"]
    source, served = bucket.read(source_key), bucket.read(key)
    wrong = []
    if hashlib.sha256(source).hexdigest() != row["source_sha256"]:
        wrong.append(f"{uri}: the row is of another content")
    if hashlib.sha256(served).hexdigest() != row["output_sha256"]:
        wrong.append(f"{uri}: its file is not the one of the row")
    before, after = _pixels(source), _pixels(served)
    if before.shape != after.shape:
        return [*wrong, f"{uri}: its file has another size"]
    change = np.abs(before - after).mean()
    if not 0 < change < _MOST_MEAN_CHANGE:
        wrong.append(f"{uri}: changed by {change:.1f} levels on the average")
    return wrong


def _pixels(content: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float64)


def _wrong_with_runs(objects: dict[str, int], output: str) -> list[str]:
    """Every run that was begun is finished, and nobody holds the lock."""
    folders = {key.split("/runs/")[1].split("/")[0] for key in objects if "/runs/" in key}
    wrong = [
        f"run {name} is not finished"
        for name in folders
        if f"{output}runs/{name}/run.json" in objects
        and f"{output}runs/{name}/_FINISHED.json" not in objects
    ]
    locks = [key for key in objects if key.startswith(f"{output}locks/") and key.endswith(".json")]
    newest = max(locks, default="")
    if newest.removesuffix(".json") + ".released" not in objects:
        wrong.append(f"{newest or output}: a lock that nobody gave back")
    return wrong


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, number in Counter(names).items() if number > 1]
