"""The trainings that benchmarks/train.py times: ours, a plain loop, pytorch-adapt, a bare step.

Each runs in its own process, which waits for a number of steps, does them and reports. So they can
take turns, and none is affected by what another left in memory.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

from oncoshift.data.packs.pack import Pack
from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.methods.factory import build_method
from oncoshift.models.reversal import reverse_gradient
from oncoshift.serving.trunks import IMAGENET_MEAN, IMAGENET_STD
from oncoshift.settings import parse_settings
from oncoshift.training.devices import pick_precision
from oncoshift.training.inputs import PixelInputs
from oncoshift.training.loop import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

    from oncoshift.settings import Settings


PEERS = Path(__file__).parent.parent / "build" / "peers"
"""Folder with pytorch-adapt; see peers.txt."""


class Tile(NamedTuple):
    """A tile: its JPEG file, organ, and label (0 benign, 1 malignant)."""

    path: str
    organ: str
    label: int


@dataclass(frozen=True)
class Setup:
    """What one contender is to do.

    Attributes:
        tiles: Tiles in the order of the pack's rows.
        pack: Folder of the pack of these tiles.
        target: Organ without labels.
        sources: Labelled organs.
        device: cpu | cuda.
        backbone: resnet18 | resnet50.
        size: Side of a tile in the network, pixels.
        batch: Source tiles in a step; as many target tiles are added.
        steps: Total steps that may be requested.
        threads: torch's threads.
        workers: Processes of the DataLoader.
        compile: Whether ours and the bare step are compiled.
        repeat: How often ours goes over every tile in one epoch.
    """

    tiles: tuple[Tile, ...]
    pack: Path
    target: str
    sources: tuple[str, ...]
    device: str
    backbone: str
    size: int
    batch: int
    steps: int
    threads: int
    workers: int = 0
    compile: bool = False
    repeat: int = 1

    def of(self, *organs: str) -> list[Tile]:
        """List the tiles of some organs."""
        return [tile for tile in self.tiles if tile.organ in organs]


class Report(NamedTuple):
    """Figures of the steps of one turn.

    Attributes:
        seconds: Wall-clock time.
        waited: Part of `seconds` between an optimiser's step and the next forward, on the host.
        losses: Label loss of each step.
        peak_bytes: Peak memory so far, of the GPU if there is one and of the process otherwise.
    """

    seconds: float
    waited: float
    losses: list[float]
    peak_bytes: int


class Finished(Exception):  # noqa: N818 - nothing is wrong
    """Signal that no more steps are wanted."""


class Turns:
    """A contender's side of turn-taking.

    The contender calls `begin` when a step's batch is ready, and `loss` once in the step. A turn
    lasts from one `begin` to the one that many steps later, so it makes as many batches as it uses.
    """

    def __init__(self, orders: Connection, device: torch.device) -> None:
        self._orders, self._device = orders, device
        self._left = 0
        self._started: float | None = None
        self._ended: float | None = None
        self._waited = 0.0
        self._losses: list[Tensor] = []
        register_optimizer_step_post_hook(self._stepped)

    def begin(self) -> None:
        """At the end of a turn, report and wait for the next one.

        Raises:
            Finished: There is no next turn.
        """
        if self._ended is not None:
            self._waited += time.perf_counter() - self._ended
        if self._left == 0:
            if self._started is not None:
                self._orders.send(self._report(self._started))
            self._left = self._orders.recv()
            if self._left == 0:
                raise Finished
            self._waited, self._losses = 0.0, []
            self._started = time.perf_counter()
        self._left -= 1

    def loss(self, loss: Tensor) -> None:
        """Record the label loss of the step."""
        self._losses.append(loss.detach())

    def _stepped(self, *_: Any) -> None:
        self._ended = time.perf_counter()

    def _report(self, started: float) -> Report:
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        peak = (
            torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        return Report(seconds, self._waited, [float(loss) for loss in self._losses], peak)


def serve(name: str, setup: Setup, orders: Connection) -> None:
    """Run a contender in its process."""
    torch.set_num_threads(setup.threads)
    torch.manual_seed(0)
    with suppress(Finished):
        CONTENDERS[name](setup, Turns(orders, torch.device(setup.device)))


def experiment(setup: Setup) -> Settings:
    """Return our settings: defaults but for what is compared, and no checkpoint in a turn."""
    return parse_settings(
        {
            "target": setup.target,
            "sources": setup.sources,
            "model": {"backbone": setup.backbone},
            "train": {
                "method": "dann",
                "epochs": 1,
                "steps_per_epoch": setup.steps + 1,
                "batch_size": setup.batch,
                "device": setup.device,
                "compile": setup.compile,
                "checkpoint_minutes": None,
            },
        }
    )


def training_data(setup: Setup) -> TrainingData:
    """Return the pack's rows as training receives them."""
    images = Pack.open(setup.pack).images

    def source(rows: list[int]) -> SourceTiles:
        tiles = [setup.tiles[row] for row in rows]
        organs = [setup.sources.index(tile.organ) for tile in tiles]
        labels = [tile.label for tile in tiles]
        return SourceTiles(images, np.array(rows), np.array(labels), np.array(organs), setup.sources)

    rows = [row for row, tile in enumerate(setup.tiles) if tile.organ in setup.sources] * setup.repeat
    target = [row for row, tile in enumerate(setup.tiles) if tile.organ == setup.target] * setup.repeat
    return TrainingData(source(rows), source(rows[:1]), TargetTiles(images, np.array(target)))


def ours(setup: Setup, turns: Turns) -> None:
    """Train with the project's own Trainer, from a pack."""
    settings, data = experiment(setup), training_data(setup)
    method = build_method(settings)
    method.register_forward_pre_hook(lambda *_: turns.begin())
    method.register_forward_hook(lambda _method, _batch, result: turns.loss(result[1]["label_loss"]))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        inputs = PixelInputs(data.source.images)
        Trainer(method, data, inputs, settings.train, 0, "benchmark", checkpoint, lambda _row: None).fit()


def bare(setup: Setup, turns: Turns) -> None:
    """Train ResNet with cross-entropy on one batch that stays on the device: the lower bound."""
    device = torch.device(setup.device)
    half = pick_precision(experiment(setup).train, device) == "bf16-mixed"
    net = getattr(models, setup.backbone)(num_classes=2).to(device, memory_format=torch.channels_last)
    if setup.compile:
        net.compile()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    x = torch.randn(2 * setup.batch, 3, setup.size, setup.size, device=device)
    x = x.to(torch.bfloat16 if half else torch.float32, memory_format=torch.channels_last)
    labels = torch.randint(2, (len(x),), device=device)
    while True:
        turns.begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        turns.loss(loss)


class JpegTiles(Dataset[tuple[Tensor, int, int]]):
    """Tiles from files by torchvision's transforms: image [3, S, S], label, domain (1: target)."""

    def __init__(self, tiles: list[Tile], setup: Setup) -> None:
        self.tiles, self.target = tiles, setup.target
        self.transform = transforms.Compose(
            [
                transforms.Resize(setup.size),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, position: int) -> tuple[Tensor, int, int]:
        tile = self.tiles[position]
        with Image.open(tile.path) as image:
            return self.transform(image.convert("RGB")), tile.label, int(tile.organ == self.target)


class Images(Dataset[Any]):
    """The same tiles in pytorch-adapt's form: image and label, or the image alone."""

    def __init__(self, tiles: list[Tile], setup: Setup, *, labelled: bool) -> None:
        self.tiles, self.labelled = JpegTiles(tiles, setup), labelled

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, position: int) -> Any:
        image, label, _ = self.tiles[position]
        return (image, label) if self.labelled else image


def loader_options(setup: Setup, batch: int) -> dict[str, Any]:
    """Return the options of both peers' loaders."""
    return {
        "batch_size": batch,
        "shuffle": True,
        "drop_last": True,
        "num_workers": setup.workers,
        "persistent_workers": setup.workers > 0,
        "pin_memory": setup.device == "cuda",
    }


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Iterate over a loader epoch after epoch."""
    while True:
        yield from loader


class PlainDann(nn.Module):
    """The network of arXiv 2601.14678.

    Pooled features → Linear 512 → ReLU → Dropout → label and domain heads.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.trunk = getattr(models, backbone)()
        width = self.trunk.fc.in_features
        self.trunk.fc = nn.Identity()
        self.shared = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.5))
        self.label, self.domain = nn.Linear(512, 2), nn.Linear(512, 1)

    def forward(self, x: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """Map tiles [N, 3, S, S] to label logits [N, 2] and domain logits [N]."""
        z = self.shared(self.trunk(x))
        return self.label(z), self.domain(reverse_gradient(z, strength)).squeeze(1)


def plain(setup: Setup, turns: Turns) -> None:
    """Train with a plain loop, as the authors of arXiv 2601.14678 do with Hugging Face's Trainer.

    float32, contiguous memory, JPEG files through a DataLoader; one forward over a mixed batch in
    which the label loss of target tiles is masked; SGD from 0.1 to 0 with weight decay, gradient
    clip 1, and the loss read after each step. λ grows with the square of progress; the authors set
    it once an epoch.
    """
    device = torch.device(setup.device)
    net = PlainDann(setup.backbone).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / (setup.steps + 1)))
    dataset = JpegTiles(setup.of(*setup.sources, setup.target), setup)
    loader = DataLoader(dataset, **loader_options(setup, 2 * setup.batch))
    total = torch.zeros((), device=device)
    net.train()
    for step, batch in enumerate(endless(loader)):
        x, labels, domains = (part.to(device, non_blocking=True) for part in batch)
        turns.begin()
        label_logits, domain_logits = net(x, (step / (setup.steps + 1)) ** 2)
        label_loss = (F.cross_entropy(label_logits, labels, reduction="none") * (1 - domains)).mean()
        loss = label_loss + F.binary_cross_entropy_with_logits(domain_logits, domains.float())
        loss.backward()
        if not torch.isnan(loss):
            total += loss.detach()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        net.zero_grad()
        turns.loss(label_loss)


def pytorch_adapt(setup: Setup, turns: Turns) -> None:
    """Train pytorch-adapt's DANN adapter with its own heads, optimisers and domain pairing.

    The optimisers are Adam with a learning rate of 1e-4.
    """
    sys.path.append(str(PEERS))
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from pytorch_adapt.adapters import DANN
    from pytorch_adapt.containers import Models
    from pytorch_adapt.datasets import CombinedSourceAndTargetDataset, DataloaderCreator, SourceDataset, TargetDataset
    from pytorch_adapt.models import Classifier, Discriminator
    from pytorch_adapt.utils.common_functions import batch_to_device

    device = torch.device(setup.device)
    trunk = getattr(models, setup.backbone)()
    width = trunk.fc.in_features
    trunk.fc = nn.Identity()
    heads = {"C": Classifier(2, in_size=width), "D": Discriminator(width)}
    adapter = DANN(models=Models({"G": trunk.to(device)} | {name: head.to(device) for name, head in heads.items()}))
    dataset = CombinedSourceAndTargetDataset(
        SourceDataset(Images(setup.of(*setup.sources), setup, labelled=True)),
        TargetDataset(Images(setup.of(setup.target), setup, labelled=False)),
    )
    loader = DataloaderCreator(train_kwargs=loader_options(setup, setup.batch))(train=dataset)["train"]
    adapter.models.train()
    for batch in endless(loader):
        on_device = batch_to_device(batch, device)
        turns.begin()
        losses = adapter.training_step(on_device)
        turns.loss(torch.tensor(losses["total_loss"]["src_c_loss"]))


CONTENDERS: dict[str, Callable[[Setup, Turns], None]] = {
    "ours": ours,
    "plain": plain,
    "pytorch_adapt": pytorch_adapt,
    "bare": bare,
}
