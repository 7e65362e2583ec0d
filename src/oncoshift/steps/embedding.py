"""The embedding map of a retraining: the shared feature of control and method, of one seed each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.evaluation.embedding import FeatureMap, pick_rows
from oncoshift.training.devices import pick_device
from oncoshift.training.features import FeatureCache, make_inputs
from oncoshift.training.job import load_net
from oncoshift.training.prediction import compute_outputs

if TYPE_CHECKING:
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.training.job import TrainedJob


def map_features(jobs: ExperimentJobs, trained: TrainedJob, title: str) -> FeatureMap:
    """Compute a job's features of source validation and test tiles, some of each organ.

    Args:
        jobs: of the experiment.
        trained: the job.
        title: of the map.
    """
    tiles = jobs.load_tiles(("source_val", "test"))
    picked = pick_rows(tiles.organs)
    job = trained.job
    device = pick_device(job.settings.train.device)
    net = load_net(trained).to(device)
    inputs = make_inputs(net, tiles.images, FeatureCache(job.features, job.pack_digest), device)
    features = compute_outputs(net, inputs, tiles.rows[picked], device).features
    return FeatureMap(title, features, tiles.organs[picked], tiles.labels[picked])
