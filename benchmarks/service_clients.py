"""Clients of the query service for the benchmarks: who asks again when answered, who comes whenever, who sends many."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx


@dataclass(slots=True)
class Told:
    """What clients saw. took: seconds of each answer. failed: neither answered nor refused."""

    took: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.took) / self.seconds

    def quantile(self, part: float) -> float:
        """Seconds that this part of the accepted stayed below."""
        return sorted(self.took)[min(len(self.took) - 1, int(part * len(self.took)))]


def ask(connection: http.client.HTTPConnection, address: str, photo: bytes) -> tuple[int, float]:
    """(status, seconds to wait before the next)."""
    connection.request("POST", address, photo, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    response.read()
    if response.status not in (200, 503):
        raise RuntimeError(f"{address} answered {response.status}")
    return response.status, float(response.headers.get("Retry-After", 0))


def closed(port: int, address: str, photos: list[bytes], clients: int, seconds: float) -> Told:
    """So many clients, each asking again as soon as it is answered; who is refused waits as long as he is told."""
    told, lock, end = Told(), threading.Lock(), time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        place = number
        while time.perf_counter() < end:
            started = time.perf_counter()
            status, wait = ask(connection, address, photos[place % len(photos)])
            with lock:
                if status == 200:
                    told.took.append(time.perf_counter() - started)
                else:
                    told.refused += 1
            time.sleep(min(wait, max(0.0, end - time.perf_counter())))
            place += 1
        connection.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))  # raises what one of them met
    told.seconds = time.perf_counter() - started
    return told


def arrivals(port: int, address: str, photos: list[bytes], rate: float, seconds: float) -> Told:
    """Photos that come at random times, `rate` a second on average, whether or not the others were answered."""
    told, rng = Told(), random.Random(0)

    async def one(photo: bytes) -> None:
        started = time.perf_counter()
        head = f"POST {address} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n"
        status = b""
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + photo)
                status = (await reader.read())[9:12]
        if status == b"200":
            told.took.append(time.perf_counter() - started)
        else:
            told.refused += status == b"503"
            told.failed += status != b"503"

    async def all_of_them() -> None:
        end, tasks = time.perf_counter() + seconds, []
        while time.perf_counter() < end:
            tasks.append(asyncio.create_task(one(photos[len(tasks) % len(photos)])))
            await asyncio.sleep(rng.expovariate(rate))
        await asyncio.gather(*tasks)

    started = time.perf_counter()
    asyncio.run(all_of_them())
    told.seconds = time.perf_counter() - started
    return told


def batches(port: int, photos: list[bytes], seconds: float, num: int = 32) -> float:
    """Photos a second of one client who sends so many in a form."""
    form = httpx.Request("POST", "http://x", files=[("photo", ("x.jpg", photos[n % len(photos)])) for n in range(num)])
    body, headers = form.read(), {"Content-Type": form.headers["content-type"]}
    connection, done = http.client.HTTPConnection("127.0.0.1", port, timeout=120), 0
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        connection.request("POST", "/v1/search/batch", body, headers)
        told = json.loads(connection.getresponse().read())
        done += sum(item["status"] == 200 for item in told["items"])
    return done / (time.perf_counter() - started)
