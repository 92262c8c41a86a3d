"""How `hbr serve` stands up to many clients; prints JSON.

Starts a real `hbr serve`, restores one photo for reference, then lets clients send it at the same
time: every answer is counted as right (200 and the same bytes), refused (413, 429, 503) or wrong.
Then one client sends further photos one after another, while the memory of the server is read.

Usage: python benchmarks/service_load.py [--clients 20] [--requests 200] [--then 1000]
"""

import argparse
import io
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
from machine import machine
from PIL import Image

PHOTO = Path("tests/data/tie.png")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--then", type=int, default=1000)
    args = parser.parse_args()
    command = [str(Path(sys.executable).with_name("hbr")), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        server = psutil.Process(process.pid)
        try:
            result = _measure(address, server, args)
        finally:
            process.terminate()
    print(json.dumps({"benchmark": "service_load", **result, **machine()}, indent=1))


def _measure(address: str, server: psutil.Process, args: argparse.Namespace) -> dict[str, object]:
    photo = PHOTO.read_bytes()
    with httpx.Client(base_url=address, timeout=600) as client:
        right = _send(client, photo).content

        def one(_: int) -> tuple[str, float]:
            began = time.perf_counter()
            with httpx.Client(base_url=address, timeout=600) as own:
                answer = _send(own, photo)
            kind = "wrong"
            if answer.status_code in (413, 429, 503):
                kind = f"refused with {answer.status_code}"
            elif answer.status_code == 200 and answer.content == right:
                kind = "right"
            return kind, time.perf_counter() - began

        began = time.perf_counter()
        with ThreadPoolExecutor(args.clients) as pool:
            answers = list(pool.map(one, range(args.requests)))
        seconds = time.perf_counter() - began
        small = _small()
        memory = []
        for i in range(args.then):
            assert _send(client, small).status_code == 200
            if i % max(1, args.then // 10) == 0:
                memory.append(round(server.memory_info().rss / 2**20, 1))
        memory.append(round(server.memory_info().rss / 2**20, 1))
    return {
        "clients": args.clients,
        "answers": dict(Counter(kind for kind, _ in answers)),
        "seconds": round(seconds, 1),
        "slowest answer, s": round(max(each for _, each in answers), 2),
        "then": args.then,
        "memory, MiB": memory,
    }


def _send(client: httpx.Client, photo: bytes) -> httpx.Response:
    return client.post("/v1/restore", files={"photo": ("photo.png", photo)})


def _small() -> bytes:
    """A PNG of 64x64 pixels of noise."""
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
