"""The stage that chooses the background score of walked maps, where it is `auto`, without masks.

The walk spreads the CAMs' values, and their distribution says no longer where objects end. The
confident labels say it, of the pixels that are sure: those that IRNet learnt from. The walk and its
labels are one stage, so that the score is chosen before, from a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsss.data.images import read_label
from wsss.data.index import read_index
from wsss.data.map_agreement import mean_overlap, overlap_counts
from wsss.errors import UserError
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.edges import Walker, edge_finder
from wsss.irn.inputs import check_store
from wsss.irn.pseudo_labels import GPU_BATCH, batches_of, job_of, walked_jobs
from wsss.irn.walked import WalkJob, walked_scores
from wsss.maps.background_choice import SCORES
from wsss.maps.chosen import chosen_entry, write_chosen
from wsss.maps.map_store import MapStore
from wsss.runtime.compute import InferenceCompute, setup
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress

SAMPLE = 100
"""Images that are walked, evenly spaced through the training set."""
METHOD = "agreement with the confident labels"
"""What chooses, in words."""


def choose_walk_threshold(
    *,
    config: PseudoLabelsConfig,
    cams: Path,
    model: Path,
    labels: Path,
    index: Path,
    root: Path,
    output: Path,
    compute: InferenceCompute,
) -> None:
    """Walk a sample of the training images, and choose the background score of their maps.

    It is the one whose labels have the largest mean IoU with the confident labels, over the pixels
    of the sample that these are sure of; of equals the lowest.

    Args:
        config: The walk.
        cams: Map store of the CAMs, at stride 4.
        model: The trained IRNet.
        labels: Folder of the confident labels that it learnt from (`NAME.png`, 255: not sure).
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: JSON of chosen scores to write.
        compute: Device of the network and the walks, as of the pseudo-labels.

    Raises:
        UserError: The inputs do not belong together, an image or a label map is missing or has
            changed, or no pixel of the sample is sure.
    """
    device = setup(compute, seed=0)
    known = read_index(index)
    records = known.training_set().records
    count = min(SAMPLE, len(records))
    sample = [records[len(records) * i // count] for i in range(count)]
    with MapStore(cams) as store:
        check_store(store, known, records, cams)
        jobs: Iterator[WalkJob]
        if device.type == "cuda":
            batches = list(batches_of(sample, GPU_BATCH))
            find_edges = edge_finder(model, config, device)
            jobs = walked_jobs(config, find_edges, store, batches, root, device)
        else:
            waiting = (job_of(store, record) for record in sample)
            jobs = ordered_map(Walker(config, model, root), waiting, compute.workers)
        counts = np.zeros((len(SCORES), 3, len(known.classes) + 1), dtype=np.int64)
        for job in progress(jobs, total=count, description="choose walk threshold"):
            scores = walked_scores(job.maps, (job.record.height, job.record.width))[1]
            sure = read_label(labels / f"{job.record.name}.png")
            counts += overlap_counts(scores, job.class_indices, sure, SCORES, counts.shape[2])
    if not counts.any():
        raise UserError(
            f"the confident labels of {count} images are sure of no pixel",
            where=labels,
            fix="choose labels.foreground_threshold and labels.background_threshold closer to "
            "each other",
        )
    agreement = mean_overlap(counts)
    best = int(agreement.argmax())
    names = [record.name for record in sample]
    entry = chosen_entry(
        "walked", SCORES[best], method=METHOD, sample=names, agreement=round(agreement[best], 6)
    )
    write_chosen(output, {"walked": entry})
    print(
        f"the walked maps of {count} images agree with the confident labels best at "
        f"{SCORES[best]:g}: mean IoU {agreement[best]:.3f}"
    )
