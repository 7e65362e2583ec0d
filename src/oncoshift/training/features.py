"""Outputs of the frozen trunk parts, computed once a pack and cached on disk.

A file is named by the hash of what decides its content (pack, frozen weights, parts) and ends with
a digest of its bytes, which each process checks once. Progress and the digest so far are recorded
every eight chunks, so that a killed run can resume. A damaged file is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import xxhash

from oncoshift.files import (
    DamagedFileError,
    check_file,
    check_seal,
    hold_lock,
    read_json,
    seal,
    sweep,
    write_json,
    xxh3_file,
)
from oncoshift.fingerprint import fingerprint_code
from oncoshift.training.inputs import FeatureInputs, Inputs, PixelInputs
from oncoshift.training.memory import keeping_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.data.tables import Images
    from oncoshift.models.network import TrainedNet

_log = logging.getLogger(__name__)
_CHUNK = 64


@dataclass(frozen=True)
class FeatureCache:
    """The location of cached features, and the identity of their pack.

    Attributes:
        folder: of the files.
        pack_digest: content hash of the pack.
    """

    folder: Path
    pack_digest: str


def make_inputs(
    net: TrainedNet,
    images: Images,
    cache: FeatureCache,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inputs:
    """Make the network's inputs for a pack: its pixels or, with frozen parts, their cached outputs.

    Args:
        net: the network whose frozen parts count.
        images: uint8 [M, S, S, 3], the pack.
        cache: where outputs are kept.
        device: where outputs are computed.
        on_progress: called with tiles done and tiles in all.
    """
    if not net.frozen:
        return PixelInputs(images)
    key = _compute_key(net, cache.pack_digest)
    done = cache.folder / f"{key}.npy"
    if _find_fault(done) is not None:
        done.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(
            done.with_suffix(".lock")
        ):  # workers of one study come here at once; those that waited find it done
            fault = _find_fault(done)
            if fault is not None:
                if done.is_file():
                    _log.warning("%s; the features are computed again", fault)
                sweep(done.parent, of=key)
                _compute(net, images, done, device, on_progress)
    return FeatureInputs(np.load(done, mmap_mode="r"))


def _find_fault(done: Path) -> str | None:
    """Find what is wrong with a file of features, or None."""
    try:
        file = done.stat()
    except FileNotFoundError:
        return f"{done}: is not there"
    return _check_bytes(done, file.st_size, file.st_mtime_ns)


@cache
def _check_bytes(done: Path, size: int, modified: int) -> str | None:  # noqa: ARG001 - a file made anew is another
    """Check a file's bytes, once a process because there may be gigabytes."""
    try:
        check_seal(done)
    except DamagedFileError as error:
        return str(error)
    return None


def _compute_key(net: TrainedNet, pack_digest: str) -> str:
    code = fingerprint_code(__name__, "oncoshift.models.network", libraries=("torch", *net.libraries))
    digest = hashlib.sha256(json.dumps([pack_digest, net.frozen, code]).encode())
    for part in net.frozen:
        frozen = getattr(net.classifier.trunk, part)
        for name, tensor in frozen.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().numpy().tobytes())
        digest.update(repr(frozen).encode())  # what is in no tensor, such as strides and pooling
    return digest.hexdigest()[:32]


@keeping_freed_memory()
def _compute(
    net: TrainedNet,
    images: Images,
    done: Path,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    trunk = net.classifier.trunk.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in net.frozen:
        getattr(trunk, part).eval()
    pixels = PixelInputs(images)
    shape = tuple(_forward(net, trunk, pixels, np.arange(1), device).shape[1:])
    # Feature maps are large, and the layers that follow tolerate half precision; pooled vectors are
    # small and stay in float32.
    kind = np.float32 if len(shape) == 1 else np.float16
    partial, marker = done.with_suffix(".partial.npy"), done.with_suffix(".progress")
    start, digest = _resume_partial(partial, marker)
    _log.info(
        "frozen parts %s: %d of %d tiles to compute",
        "…".join(net.frozen[:: len(net.frozen) - 1 or 1]),
        len(images) - start,
        len(images),
    )
    values = np.lib.format.open_memmap(partial, mode="r+" if start else "w+", dtype=kind, shape=(len(images), *shape))
    if not start:
        values.flush()
        digest = xxh3_file(partial, values.offset)
    for first in range(start, len(images), _CHUNK):
        rows = np.arange(first, min(first + _CHUNK, len(images)))
        features = np.ascontiguousarray(_forward(net, trunk, pixels, rows, device), kind)
        values[rows] = features
        digest.update(features.data)
        if first // _CHUNK % 8 == 7:
            values.flush()
            size = values.offset + values[: rows[-1] + 1].nbytes
            write_json(marker, {"rows": int(rows[-1]) + 1, "bytes": size, "xxh3": digest.hexdigest()})
        if on_progress is not None:
            on_progress(int(rows[-1]) + 1, len(images))
    values.flush()
    seal(partial, digest.hexdigest())
    partial.replace(done)
    marker.unlink(missing_ok=True)


def _resume_partial(partial: Path, marker: Path) -> tuple[int, xxhash.xxh3_128]:
    """Truncate a killed run's file to its recorded rows; return their number and digest."""
    try:
        noted = read_json(marker, "rows", "bytes", "xxh3")
        digest = check_file(partial, noted["xxh3"], noted["bytes"])
    except (FileNotFoundError, DamagedFileError) as error:
        if isinstance(error, DamagedFileError):
            _log.warning("%s; features are computed from the first tile on", error)
        return 0, xxhash.xxh3_128()
    os.truncate(partial, noted["bytes"])
    return int(noted["rows"]), digest


@torch.inference_mode()
def _forward(
    net: TrainedNet, trunk: torch.nn.Module, pixels: PixelInputs, rows: NDArray[np.int64], device: torch.device
) -> NDArray[np.float32]:
    out: NDArray[np.float32] = trunk.run(pixels.batch(rows, device), net.frozen).float().cpu().numpy()  # type: ignore[operator]
    return out
