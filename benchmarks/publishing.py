"""What publishing takes of a store that needs 50 ms a request: photos a second, requests a photo.

``python -m benchmarks.publishing`` commits sets into a real S3 server, then lets a fold publish
them through a proxy that delays every request, in a process of its own. What a worker asks of the
store for the same sets is counted too, by the proxy; reading INPUT is one more request a photo.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.manifest_row import ManifestRow
from pipeline.output.fold import Fold
from pipeline.output.ledger import Attempt, Ledger
from pipeline.records import CommitName, CommitRecord, PhotoSet, SourcePhoto, StagedRow
from pipeline.storage.store import Store
from tools.trial.object_store import Seaweed

BUCKET, RUN = "benchmark", "run"


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--photos-per-set", type=int, default=16)
    parser.add_argument("--photo-bytes", type=int, default=100_000)
    parser.add_argument("--delay-s", type=float, default=0.05, help="of every request")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Seaweed(Path(folder), BUCKET)
        os.environ.update(server.environment)
        server.start()
        try:
            measured = measure(server, arguments)
        finally:
            server.kill()
    print(json.dumps({**vars(arguments), **measured}), flush=True)


def measure(server: Seaweed, arguments: argparse.Namespace) -> dict[str, float]:
    """Work as workers do, then publishing, each with its requests."""
    num_photos = arguments.sets * arguments.photos_per_set
    counter: Any = multiprocessing.Value("q", 0)
    port: Any = multiprocessing.Value("i", 0)
    proxy = multiprocessing.get_context("fork").Process(
        target=lambda: asyncio.run(delay(server.port, arguments.delay_s, counter, port)),
        daemon=True,
    )
    proxy.start()
    while not port.value:
        time.sleep(0.05)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port.value}"
    try:
        store = Store(f"s3://{BUCKET}/out")
        with ThreadPoolExecutor(16) as workers:
            names = list(
                workers.map(
                    lambda number: work(store, number, arguments.photos_per_set, arguments),
                    range(arguments.sets),
                )
            )
        of_workers, counter.value = counter.value, 0
        fold = Fold(store, RUN)
        began, cpu = time.monotonic(), time.process_time()
        for name in names:
            fold.take(name)
        assert len(list(fold.published(at_most=0))) == len(names)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        of_publishing = counter.value
        assert fold() == arguments.sets
        fold.close()
    finally:
        proxy.kill()
    return {
        "publishing_s": round(took, 2),
        "photos_per_s": round(num_photos / took, 1),
        "cpu_ms_per_photo": round(1000 * cpu / num_photos, 2),
        "requests_per_photo": round(1 + (of_workers + of_publishing) / num_photos, 3),
        "of_publishing": round(of_publishing / num_photos, 3),
    }


def work(store: Store, number: int, num_photos: int, arguments: argparse.Namespace) -> CommitName:
    """A photo set as a worker decides it, without computing anything."""
    identity = f"person-{number}"
    photos = [
        SourcePhoto(identity, f"s3://in/{identity}/{i}.jpg", f"images/{identity}/{i}.png", 1, "1")
        for i in range(num_photos)
    ]
    key = hashlib.sha256(identity.encode()).hexdigest()
    ledger = Ledger(store, RUN)
    attempt = ledger.begin(PhotoSet(key, identity, tuple(photos)))
    assert isinstance(attempt, Attempt)
    rows = []
    for i, photo in enumerate(photos):
        content = os.urandom(arguments.photo_bytes)
        staged_key = ledger.staged_key(key, attempt.id, f"{i}.png")
        store.write(staged_key, content)
        row = ManifestRow(
            identity=identity,
            source_uri=photo.uri,
            source_version="1",
            status="protected",
            output_sha256=hashlib.sha256(content).hexdigest(),
        )
        rows.append(StagedRow(row, photo.output_key, staged_key))
    assert ledger.commit(CommitRecord(key, 0, identity, RUN, attempt.id, "done", rows))
    return key, 0


async def delay(server_port: int, delay_s: float, counter: Any, port: Any) -> None:
    """A proxy that hands on every request after a wait; an asyncio loop takes thousands."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", server_port)
        try:
            while request := await _message(reader, writer):
                with counter.get_lock():
                    counter.value += 1
                await asyncio.sleep(delay_s)
                behind[1].write(request)
                is_head = request.startswith(b"HEAD ")
                writer.write(await _message(behind[0], has_body=not is_head))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            behind[1].close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    port.value = server.sockets[0].getsockname()[1]
    await server.serve_forever()


async def _message(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None = None, has_body: bool = True
) -> bytes:
    """One request or answer, head and body; b'': the connection has ended.

    Args:
        writer: To a client, which may send no body before it is told to go on.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    names = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if writer is not None and names.pop(b"expect", b""):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?im)^expect:.*\r\n", b"", head)
    if not has_body or head.split(b" ", 2)[1] == b"204":
        return head
    if names.get(b"transfer-encoding", b"").strip() == b"chunked":
        while True:
            size = await reader.readuntil(b"\r\n")
            head += size + await reader.readexactly(int(size, 16) + 2)
            if int(size, 16) == 0:
                return head
    return head + await reader.readexactly(int(names.get(b"content-length", b"0")))


if __name__ == "__main__":
    main()
