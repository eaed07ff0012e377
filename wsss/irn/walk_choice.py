"""The stage that chooses the background score of walked maps, where it is `auto`, without masks.

The walk spreads the CAMs' values up to boundaries, where they fall steeply: the score is the one in
the middle of these slopes. The walk and its labels are one stage, so that it is chosen before, from
a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsss.data.index import read_index
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.edges import Walker, edge_finder
from wsss.irn.inputs import check_store, narrowed
from wsss.irn.pseudo_labels import GPU_BATCH, batches_of, job_of, walked_jobs
from wsss.irn.walked import WalkJob, walked_scores
from wsss.maps.background_choice import EDGE_METHOD, edge_score
from wsss.maps.chosen import chosen_entry, write_chosen
from wsss.maps.map_store import MapStore
from wsss.runtime.compute import InferenceCompute, setup
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress

SAMPLE = 100
"""Images that are walked, evenly spaced through the training set."""


def choose_walk_threshold(
    *,
    config: PseudoLabelsConfig,
    cams: Path,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    compute: InferenceCompute,
) -> None:
    """Walk a sample of the training images, and choose the background score of their maps.

    Args:
        config: The walk.
        cams: Map store of the CAMs, at stride 4.
        model: The trained IRNet.
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: JSON of chosen scores to write.
        compute: Device of the network and the walks, as of the pseudo-labels.

    Raises:
        UserError: The inputs do not belong together, or an image is missing or has changed.
    """
    device = setup(compute, seed=0)
    known = read_index(index)
    with MapStore(cams) as store:
        trained = np.flatnonzero(check_store(store, known, cams))
        count = min(SAMPLE, len(trained))
        chosen = trained[[len(trained) * i // count for i in range(count)]]
        known = narrowed(store, known, chosen)
        sample = known.records
        jobs: Iterator[WalkJob]
        if device.type == "cuda":
            batches = batches_of(sample, GPU_BATCH)
            find_edges = edge_finder(model, config, device)
            jobs = walked_jobs(config, find_edges, store, batches, root, device)
        else:
            waiting = (job_of(store, record) for record in sample)
            jobs = ordered_map(Walker(config, model, root), waiting, compute.workers)
        score = edge_score(
            walked_scores(job.maps, (job.record.height, job.record.width))[0]
            for job in progress(jobs, total=count, description="choose walk threshold")
        )
    names = list(sample.names)
    entry = chosen_entry("walked", score, method=EDGE_METHOD, sample=names)
    write_chosen(output, {"walked": entry})
    print(f"the walked maps of {count} images part at {score:g}")
