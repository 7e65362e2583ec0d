"""A training job: everything that decides the weights, hashed to an id, and its folder.

A finished job is never trained again; a killed one resumes from its last checkpoint. The same
settings give the same id, also after a crash, so no work is duplicated.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from oncoshift.anchors.values import LIBRARIES, identify_anchor
from oncoshift.files import (
    DamagedFileError,
    atomic,
    check_file,
    hold_lock,
    read_json,
    sweep,
    write_json,
    xxh3_file,
)
from oncoshift.fingerprint import fingerprint_code, fingerprint_value, fingerprint_weights
from oncoshift.methods.anchored import Anchored
from oncoshift.methods.factory import (
    build_method,
    list_member_settings,
    list_trained_organs,
    select_method_settings,
    wrap_network,
)
from oncoshift.methods.few_labels import FewLabels
from oncoshift.methods.registry import METHODS
from oncoshift.models.collective import wait_for_all
from oncoshift.models.lora import list_lora_libraries
from oncoshift.models.network import AdaptationNet, as_one
from oncoshift.serving.trunks import list_trunk_libraries
from oncoshift.settings import replace_values
from oncoshift.settings.training import RUNTIME_SETTINGS
from oncoshift.training.anchors import add_anchors
from oncoshift.training.closed_form import fit_closed_form
from oncoshift.training.devices import pick_device, pick_precision, using_one_thread
from oncoshift.training.distributed import is_first_process
from oncoshift.training.ensemble import average_histories
from oncoshift.training.epoch import Epoch
from oncoshift.training.features import FeatureCache, make_inputs
from oncoshift.training.few_labels import check_classes, fit_few_labels
from oncoshift.training.frozen_weights import join_frozen, keep_frozen, read_frozen, split_frozen
from oncoshift.training.loop import Trainer
from oncoshift.training.prediction import predict
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from oncoshift.data.tables import Images, TrainingData
    from oncoshift.models.network import TrainedNet
    from oncoshift.settings import Settings
    from oncoshift.training.epoch import EpochHook
    from oncoshift.training.loop import RowHook

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
        settings: of the experiment, with this job's `train.method`, `train.variant` and `seed`.
        data_digest: content hash of everything that training may read.
        pack_digest: content hash of the pack alone.
        folder: parent of the job's own folder.
        features: folder of cached features.
        labels_digest: content hash of the labels that train; empty for a method that reads none.
    """

    settings: Settings
    data_digest: str
    pack_digest: str
    folder: Path
    features: Path
    labels_digest: str = ""

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.settings.seed

    @property
    def trunks(self) -> Path:
        """Folder of frozen parts, which jobs share."""
        return self.features.with_name("trunks")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the weights; see `RUNTIME_SETTINGS` for what does not."""
        settings = self.settings
        values: dict[str, Any] = {
            "seed": settings.seed,
            "model": settings.model.model_dump(mode="json"),
            "train": settings.train.model_dump(mode="json", exclude=set(RUNTIME_SETTINGS)),
            "organs": list_trained_organs(settings),
            "data": self.data_digest,
        }
        values |= select_method_settings(settings)
        if self.labels_digest:
            values["labels"] = self.labels_digest
        if "anchor" in values:
            values["anchor"] = identify_anchor(settings.anchor)
        libraries = "torch", *list_trunk_libraries(settings.model.backbone), *(LIBRARIES if "anchor" in values else ())
        libraries = *libraries, *list_lora_libraries(settings.model.lora)
        if self.labels_digest:
            libraries = *libraries, "numpy", "scipy"  # they correct the head
        values["code"] = fingerprint_code(__name__, libraries=libraries)
        values["model"]["weights"] = fingerprint_weights(settings.model.weights)
        return values

    @cached_property
    def id(self) -> str:
        """Method, seed and hash of `identity`; fixed once read, even if code changes meanwhile."""
        return f"{self.settings.train.method}-s{self.settings.seed}-{fingerprint_value(self.identity)}"


@dataclass(frozen=True)
class TrainedJob:
    """A finished job.

    Attributes:
        job: that was trained.
        folder: holds weights.safetensors (a `Classifier`'s state, but for frozen parts), job.json
            and done.json.
        history: the epochs, in order.
        digest: XXH3 of the weights' file; None if an earlier version of oncoshift trained it.
        frozen: name of the frozen parts in `Job.trunks`; None if the weights' file has all.
    """

    job: Job
    folder: Path
    history: list[Epoch]
    digest: str | None = None
    frozen: str | None = None

    @property
    def ended_ms(self) -> int:
        """End of the training, milliseconds since 1970; a fixed timestamp for logging."""
        return self.last.ended_ms

    @property
    def last(self) -> Epoch:
        """The last epoch; its figures describe the trained network."""
        return self.history[-1]

    @property
    def weights(self) -> Path:
        """Path of what was trained of the `Classifier`'s state dict."""
        return self.folder / "weights.safetensors"

    def state(self) -> dict[str, Tensor]:
        """Load the state dict of the trained `Classifier`.

        Raises:
            DamagedFileError: the weights are not the bytes that the training wrote.
        """
        try:
            self._check_weights()
            frozen = {} if self.frozen is None else read_frozen(self.job.trunks, self.frozen)
        except DamagedFileError as error:
            raise DamagedFileError(f"{error}; start it again, and the job is trained again") from None
        return join_frozen(load_file(self.weights), frozen)

    def check(self) -> None:
        """Compare the weights with their digests.

        Raises:
            DamagedFileError: a digest differs, or the frozen parts are gone.
        """
        self._check_weights()
        if self.frozen is not None:
            read_frozen(self.job.trunks, self.frozen)

    def _check_weights(self) -> None:
        if self.digest is not None:
            check_file(self.weights, self.digest)

    def export(self, folder: Path) -> None:
        """Write the result into an existing folder, with frozen parts among the weights."""
        done = read_json(self.folder / "done.json", "history")
        save_file(self.state(), folder / "weights.safetensors")
        digest = xxh3_file(folder / "weights.safetensors").hexdigest()
        write_json(folder / "done.json", {**done, "weights": digest, "frozen": None})
        shutil.copyfile(self.folder / "job.json", folder / "job.json")


def find_trained(job: Job) -> TrainedJob | None:
    """Return the result of a job that is finished and undamaged, or None."""
    try:
        return read_trained(job, job.folder / job.id)
    except (DamagedFileError, FileNotFoundError):
        return None


def read_trained(job: Job, folder: Path) -> TrainedJob:
    """Read a job's result from a folder.

    Raises:
        DamagedFileError: done.json or the weights are damaged.
        FileNotFoundError: done.json or weights are missing, so the job is not finished.
    """
    done = read_json(folder / "done.json", "history")
    history = [Epoch(row) for row in done["history"]]
    trained = TrainedJob(job, folder, history, done.get("weights"), done.get("frozen"))
    if not trained.weights.is_file():
        raise FileNotFoundError(trained.weights)
    trained.check()
    return trained


def train_job(
    job: Job,
    data: TrainingData,
    on_epoch: EpochHook,
    on_features: Callable[[int, int], None] | None = None,
) -> TrainedJob:
    """Train a job to its end, or return its result if it is finished.

    Args:
        job: to train. For an ensemble, each member is a job of its own, trained or found.
        data: that training may read, with at least the organs that the method is trained on.
        on_epoch: called with each epoch's figures, on resuming with past ones too; for an ensemble,
            once all members are trained.
        on_features: called with tiles done and tiles in all while frozen parts are computed.

    Raises:
        DataError: one of those organs has no tiles.
        SettingsError: see `Trainer.fit`.
        TrainingError: see `Trainer.fit`; or the folder holds the checkpoint of another job.
        TrainingInterrupted: SIGTERM came; the checkpoint holds all progress.
        WeightsError: pretrained weights are missing or do not match the network.
    """
    folder = job.folder / job.id
    folder.mkdir(parents=True, exist_ok=True)
    if not is_first_process(job.settings.train):
        return _train_along(job, folder, data)
    # Two workers may meet at one job, say if a slow trial was taken for dead; the second waits and
    # finds it finished.
    with hold_lock(folder):
        return _train(job, folder, data, on_epoch, on_features)


def sweep_jobs(folder: Path) -> None:
    """Remove temporary files of killed processes from the folders of jobs not in training.

    A job that resumes cleans its own folder; without this, an abandoned one would keep its
    unfinished files.

    Args:
        folder: parent of the jobs' folders.
    """
    for job in {temporary.parent for temporary in folder.glob("*/.*.tmp")}:
        with suppress(BlockingIOError), hold_lock(job, BlockingIOError):
            sweep(job)


def drop_checkpoint(job: Job) -> None:
    """Delete the checkpoint of a job that will not be resumed; if it is, it restarts from step 0.

    With the optimiser's state, a checkpoint has two or three times the network's size.
    """
    _locate_checkpoint(job).unlink(missing_ok=True)


def _train(
    job: Job,
    folder: Path,
    data: TrainingData,
    on_epoch: EpochHook,
    on_features: Callable[[int, int], None] | None,
) -> TrainedJob:
    sweep(folder)
    try:
        done = read_trained(job, folder)
    except FileNotFoundError:
        pass
    except DamagedFileError as error:
        _log.warning("%s; the job is trained again", error)
    else:
        for epoch in done.history:
            on_epoch(epoch)
        return done
    with atomic(folder / "job.json") as temporary:
        temporary.write_text(json.dumps(job.identity, indent=1))
    state, history = _train_state(job, data, lambda row: on_epoch(Epoch(row)), on_features)
    own, parts = split_frozen(state, job.settings.model.freeze)
    frozen = keep_frozen(parts, job.trunks) if parts else None
    with atomic(folder / "weights.safetensors") as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}, temporary)
        digest = xxh3_file(temporary).hexdigest()
    device = pick_device(job.settings.train.device)
    ran = {"device": str(device), "precision": pick_precision(job.settings.train, device)}
    write_json(folder / "done.json", {"history": history, "weights": digest, "frozen": frozen, **ran})
    wait_for_all()
    drop_checkpoint(job)
    return TrainedJob(job, folder, [Epoch(row) for row in history], digest, frozen)


def _train_along(job: Job, folder: Path, data: TrainingData) -> TrainedJob:
    """Train as one of the processes on several machines whose first alone writes the folder.

    The folder is on storage that the machines share, so all find the same: the result, the
    checkpoint to go on from, or neither.
    """
    with suppress(DamagedFileError, FileNotFoundError):
        return read_trained(job, folder)
    _train_state(job, data, lambda _row: None, None)
    wait_for_all()
    return read_trained(job, folder)


def _train_state(
    job: Job, data: TrainingData, on_row: RowHook, on_features: Callable[[int, int], None] | None
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Train a network, or an ensemble's members; return as `_train_network` does."""
    train = _train_members if METHODS[job.settings.train.method].member else _train_network
    return train(job, data.only(list_trained_organs(job.settings)), on_row, on_features)


def _train_network(
    job: Job, data: TrainingData, on_row: RowHook, on_features: Callable[[int, int], None] | None
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Train a network; return the state dict to serve and the figures of the epochs."""
    settings = job.settings
    _set_threads(settings.train.threads)
    torch.manual_seed(settings.seed)
    if METHODS[settings.train.method].reads_labels:
        return _correct_prior(job, data, on_row, on_features)
    method = build_method(settings)
    device = pick_device(settings.train.device)
    cache = FeatureCache(job.features, job.pack_digest)
    inputs = make_inputs(method.net, data.source.images, cache, device, on_features)
    data = add_anchors(data, settings, cache)
    if isinstance(method, Anchored):
        history = fit_closed_form(method, data, inputs, settings, device)
        on_row(history[-1])
        return method.net.served_state(), history
    trainer = Trainer(method, data, inputs, settings.train, settings.seed, job.id, _locate_checkpoint(job), on_row)
    # A step of the heads alone takes one or two milliseconds, so more threads cost more than they
    # give.
    heads_alone = not method.net.trained
    with using_one_thread() if heads_alone and settings.train.threads is None else nullcontext():
        history = trainer.fit()
    return method.net.served_state(), history


def _correct_prior(
    job: Job, data: TrainingData, on_row: RowHook, on_features: Callable[[int, int], None] | None
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Train the prior, or find it, and correct its head by labels; return as `_train_network` does.

    The prior is a job of its own, which no label reaches.
    """
    check_classes(data, job.settings)  # before the prior's training, which may take hours
    settings = replace_values(job.settings, {"train.method": job.settings.few_labels.prior})
    prior = train_job(
        replace(job, settings=settings, labels_digest=""), replace(data, labels=None), _ignore, on_features
    )
    net = _build_untrained(job)
    net.classifier.load_state_dict(prior.state())
    method = wrap_network(net, job.settings)
    assert isinstance(method, FewLabels)  # noqa: S101 - for the type
    device = pick_device(job.settings.train.device)
    cache = FeatureCache(job.features, job.pack_digest)
    inputs = make_inputs(net, data.source.images, cache, device, on_features)
    history = fit_few_labels(method, prior.last, add_anchors(data, job.settings, cache), inputs, job.settings, device)
    on_row(history[-1])
    return net.served_state(), history


def _ignore(_: Epoch) -> None:
    """Do nothing, as the hook of a part's epochs."""


def _train_members(
    job: Job, data: TrainingData, on_row: RowHook, on_features: Callable[[int, int], None] | None
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Train an ensemble's members; return as `_train_network` does.

    Figures are the members' means, except the last epoch's validation, which is the ensemble's.
    """
    members = [replace(job, settings=settings) for settings in list_member_settings(job.settings)]
    trained, nets = [], []
    for number, member in enumerate(members, 1):
        _log.info("ensemble: member %d of %d, %s alone", number, len(members), member.settings.single.organ)
        trained.append(train_job(member, data, _ignore, on_features))
        nets.append(_build_untrained(member))
        nets[-1].classifier.load_state_dict(trained[-1].state())
    device = pick_device(job.settings.train.device)
    net = as_one(nets).to(device)
    cache = FeatureCache(job.features, job.pack_digest)
    inputs = make_inputs(net, data.source.images, cache, device)
    history = average_histories([member.history for member in trained])
    history[-1] |= validate(net, add_anchors(data, job.settings, cache), inputs, device)
    for row in history:
        on_row(row)
    return net.classifier.state_dict(), history


def _locate_checkpoint(job: Job) -> Path:
    return job.folder / job.id / "checkpoint.pt"


def load_net(trained: TrainedJob) -> TrainedNet:
    """Load the trained network, or an ensemble as one, in eval mode on the CPU.

    It is the network that is served: with BatchNorm per domain, the one with the target's
    statistics.
    """
    net = as_one([_build_untrained(trained.job) for _ in list_member_settings(trained.job.settings)])
    net.classifier.load_state_dict(trained.state())
    return net.eval()


def _build_untrained(job: Job) -> AdaptationNet:
    # In trained weights, adapters are merged.
    return AdaptationNet(job.settings.model.model_copy(update={"weights": "none", "lora": None}))


def predict_job(trained: TrainedJob, images: Images, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Predict the probability of malignant for rows of the job's pack, float64 [N]."""
    job = trained.job
    device = pick_device(job.settings.train.device)
    _set_threads(job.settings.train.threads)
    net = load_net(trained).to(device)
    inputs = make_inputs(net, images, FeatureCache(job.features, job.pack_digest), device)
    return predict(net, inputs, rows, device)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
