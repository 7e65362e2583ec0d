"""A training job: everything that decides the weights, hashed to an id, and the folder that holds its result.

A job that is done is never trained again; one that was killed goes on from its last epoch. After a crash the same
settings give the same id, so nothing is doubled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from oncoshift.files import atomic
from oncoshift.fingerprint import code_fingerprint, value_fingerprint, weights_fingerprint
from oncoshift.methods.factory import build_method, method_settings
from oncoshift.models.network import AdaptationNet
from oncoshift.training.features import FeatureCache, frozen_inputs
from oncoshift.training.loop import Trainer
from oncoshift.training.prediction import predict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.tables import Images, TrainingData
    from oncoshift.settings import Settings
    from oncoshift.training.loop import EpochHook


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
        settings: of the experiment; `train.method`, `train.variant` and `seed` are this job's.
        data_digest: content hash of all that training may read.
        pack_digest: content hash of the pack alone.
        folder: parent of the job's own folder.
        features: folder of cached features.
    """

    settings: Settings
    data_digest: str
    pack_digest: str
    folder: Path
    features: Path

    @property
    def decides(self) -> dict[str, Any]:
        """All that decides the weights."""
        settings = self.settings
        values: dict[str, Any] = {
            "seed": settings.seed,
            "model": settings.model.model_dump(mode="json"),
            "train": settings.train.model_dump(mode="json"),
            "data": self.data_digest,
            "code": code_fingerprint(),
        }
        values |= method_settings(settings)
        values["model"]["weights"] = weights_fingerprint(settings.model.weights)
        return values

    @property
    def id(self) -> str:
        """Hash of `decides`, with the method and seed in front for people."""
        return f"{self.settings.train.method}-s{self.settings.seed}-{value_fingerprint(self.decides)}"


@dataclass(frozen=True)
class TrainedJob:
    """A job that is done.

    Attributes:
        id: of the job.
        folder: holds weights.safetensors (a `TileClassifier`'s state), job.json and done.json.
        history: one row of figures an epoch.
    """

    id: str
    folder: Path
    history: list[dict[str, float]]

    @property
    def ended_ms(self) -> int:
        """When training ended, milliseconds: the same however often something is logged with it."""
        return int(self.history[-1]["timestamp_ms"])

    @property
    def weights(self) -> Path:
        """State dict of the trained `TileClassifier`."""
        return self.folder / "weights.safetensors"


def find_trained(job: Job) -> TrainedJob | None:
    """The result of a job that is done, or None."""
    folder = job.folder / job.id
    marker = folder / "done.json"
    if not marker.is_file():
        return None
    return TrainedJob(job.id, folder, json.loads(marker.read_text())["history"])


def train_job(
    job: Job,
    data: TrainingData,
    on_epoch: EpochHook,
    on_features: Callable[[int, int], None] | None = None,
) -> TrainedJob:
    """Train a job to its end, or return its result if it is done.

    Args:
        job: what to train.
        data: what training may see.
        on_epoch: called with each epoch's figures, past ones too when it goes on from a checkpoint.
        on_features: called with tiles done and tiles in all while frozen parts are computed.

    Raises:
        TrainingError: the loss is not finite, or the folder holds another job's checkpoint.
        WeightsError: pretrained weights are missing or do not fit.
    """
    done = find_trained(job)
    if done is not None:
        for row in done.history:
            on_epoch(row)
        return done
    folder = job.folder / job.id
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "job.json") as temporary:
        temporary.write_text(json.dumps(job.decides, indent=1))
    settings = job.settings
    _set_threads(settings.train.threads)
    torch.manual_seed(settings.seed)
    method = build_method(settings)
    device = pick_device(settings.train.device)
    inputs = frozen_inputs(
        method.net, data.source.images, FeatureCache(job.features, job.pack_digest), device, on_features
    )
    checkpoint = folder / "checkpoint.pt"
    history = Trainer(method, data, inputs, settings.train, settings.seed, job.id, checkpoint, on_epoch).fit()
    with atomic(folder / "weights.safetensors") as temporary:
        state = method.net.classifier.state_dict()
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
    with atomic(folder / "done.json") as temporary:
        temporary.write_text(json.dumps({"history": history}))
    checkpoint.unlink()
    return TrainedJob(job.id, folder, history)


def load_net(job: Job, trained: TrainedJob) -> AdaptationNet:
    """The trained network in eval mode, on the CPU."""
    settings = job.settings.model.model_copy(update={"weights": "none"})
    net = AdaptationNet(settings)
    net.classifier.load_state_dict(load_file(trained.weights))
    return net.eval()


def predict_job(job: Job, trained: TrainedJob, images: Images, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of malignant for rows of the pack that the job was trained on, float64 [N]."""
    device = pick_device(job.settings.train.device)
    _set_threads(job.settings.train.threads)
    net = load_net(job, trained).to(device)
    inputs = frozen_inputs(net, images, FeatureCache(job.features, job.pack_digest), device)
    return predict(net, inputs, rows, device)


def pick_device(name: str) -> torch.device:
    """`auto` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
