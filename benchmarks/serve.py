"""REST of a registered model beside its bare network: latency and throughput for one and 8 clients.

A ResNet18 at 224² is saved as a registered model is, and `mlflow models serve` answers in a process
of its own. Clients send JPEG tiles in base64, one or 16 a request, over connections that they keep.
The bare network is the same graph in ONNX Runtime on the decoded tiles, in the same run.

Run: python benchmarks/serve.py            (two minutes on two cores)
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import requests
from PIL import Image
from served_model import make_tiles, save_model

from oncoshift.serving.config import GRAPH
from oncoshift.serving.network import OnnxNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SIDE = 224


def encode(tile: NDArray[np.uint8]) -> str:
    """Encode a tile as a JPEG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start `mlflow models serve` and wait until it answers."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", str(folder)]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
    )
    while server.poll() is None:
        try:
            requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.5)
        else:
            return server
    raise RuntimeError(f"`{' '.join(command)}` ended with {server.returncode}")


def ask(url: str, body: str, requests_each: int) -> list[float]:
    """Send requests one after the other; seconds of each."""
    taken = []
    with requests.Session() as session:
        for _ in range(requests_each):
            began = time.perf_counter()
            answer = session.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=120)
            answer.raise_for_status()
            taken.append(time.perf_counter() - began)
            assert all(row["error"] is None for row in answer.json()["predictions"])
    return taken


def load(url: str, texts: list[str], clients: int, requests_each: int) -> dict[str, float]:
    """Let clients send at once; latency in milliseconds and tiles per second."""
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}})
    ask(url, body, 2)
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        taken = [each for one in pool.map(lambda _: ask(url, body, requests_each), range(clients)) for each in one]
    wall = time.perf_counter() - began
    return {
        "p50_ms": 1000 * float(np.percentile(taken, 50)),
        "p99_ms": 1000 * float(np.percentile(taken, 99)),
        "tiles_per_s": len(taken) * len(texts) / wall,
    }


def time_network(network: OnnxNetwork, tiles: NDArray[np.uint8], rounds: int) -> dict[str, float]:
    """Run the bare network."""
    network(tiles)
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        network(tiles)
        taken.append(time.perf_counter() - began)
    p50, p99 = (1000 * float(np.percentile(taken, share)) for share in (50, 99))
    return {"p50_ms": p50, "p99_ms": p99, "tiles_per_s": rounds * len(tiles) / sum(taken)}


def measure(folder: Path, rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the figures of each way and size of request."""
    tiles = make_tiles(32, SIDE)
    save_model(folder, tiles, "resnet18")
    network = OnnxNetwork(folder / "artifacts" / GRAPH, "cpu")
    for size in (1, 16):
        yield f"network, {size} a batch", time_network(network, tiles[:size], max(rounds // size, 5))
    del network  # its threads would take cores from the server
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start(folder, port)
    try:
        texts = [encode(tile) for tile in tiles[:16]]
        for clients in (1, 8):
            for size in (1, 16):
                each = max(rounds // size // clients, 4)
                yield (
                    f"{clients} client(s), {size} a request",
                    load(f"http://127.0.0.1:{port}/invocations", texts[:size], clients, each),
                )
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def main() -> None:
    """Print a table, then the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="requests of one tile, over all clients")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    print(f"{'':>28} {'p50 ms':>8} {'p99 ms':>8} {'tiles/s':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, row in measure(Path(scratch) / "model", given.rounds):
            print(f"{name:>28} {row['p50_ms']:>8.1f} {row['p99_ms']:>8.1f} {row['tiles_per_s']:>8.1f}", flush=True)
            key = name.replace("(s)", "").replace(",", "").replace(" ", "_")
            figures |= {f"{key}_{figure}": round(value, 1) for figure, value in row.items()}
    print(json.dumps({"benchmark": "serve", "figures": figures}))


if __name__ == "__main__":
    main()
