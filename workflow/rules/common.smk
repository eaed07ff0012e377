# What the rule files share. Local settings (device, data roots, weight files) reach a command
# through `resources:`, which Snakemake does not remember, so that changing them reruns nothing;
# what decides a result is an input or a param, and does.
import json
import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path

from wsss.cam.methods.registry import METHODS
from wsss.irn.label_methods import LABEL_METHODS
from wsss.models.config import package_fingerprints
from wsss.project.config import load_config, parse_texts
from wsss.project.code import code_hash
from wsss.project.names import NAME
from wsss.provenance import file_fingerprint
from wsss.runtime.plugins import VARIABLE

# `.venv/bin/snakemake` also works in a shell where the environment is not activated.
PROGRAMS = [str(Path(sys.executable).parent), *os.environ.get("PATH", "").split(os.pathsep)]
if PROGRAMS[0] not in PROGRAMS[1:]:
    os.environ.update(PATH=os.pathsep.join(PROGRAMS))

CONFIG = load_config(parse_texts(config))
# The stages, each a process of its own, know the same plug-ins.
os.environ[VARIABLE] = os.pathsep.join(map(str, CONFIG.plugins))
ENVIRONMENT = "../../envs/wsss.yaml"
# Pattern of the names in `runs:`.
RUN_NAME = NAME
# The same, and one row of its ablations, and one row and seed of its methods.
ANY_RUN = f"{RUN_NAME}(/(ablation|methods)/[A-Za-z0-9._-]+)?"
DEMO_ROOT = str(CONFIG.roots.get("demo", "results/demo-data"))


include: "contents.smk"
include: "lenders.smk"
include: "resources.smk"
include: "stages.smk"


def code(name):
    """Param: hash of the code that a stage runs."""
    return lambda wildcards: code_hash(STAGES[name], CONFIG, wildcards.get("run"))


def settings_json(wildcards):
    """Param: a stage's resolved settings."""
    return json.dumps(CONFIG.run(wildcards.run).settings(wildcards.stage), sort_keys=True)


def setting(wildcards, section, key):
    """Return one setting of a run."""
    return getattr(CONFIG.run(wildcards.run).stages[section], key)


def cam_method(run):
    """Return the record of a run's CAM method."""
    return METHODS.get(run.stages["cam"].method, where="cam.method")


def label_method(run):
    """Return the record of how a run's pseudo-labels are made."""
    return LABEL_METHODS.get(run.stages["pseudo_labels"].method, where="pseudo_labels.method")


def unused_inputs(stage, wildcards):
    """Return the inputs of a stage that the chosen methods have no use for."""
    run = CONFIG.run(wildcards.run)
    if stage == "pseudo_labels" and not label_method(run).needs_model:
        return ["model"]
    return []


def chosen_scores(stage):
    """Input: the background scores that a stage's settings leave to the maps, if any."""

    def files(wildcards):
        if "thresholds" not in stage.inputs:
            return {}
        run, folder = CONFIG.run(wildcards.run), f"results/{wildcards.run}"
        walks, scored = label_method(run).needs_model, wildcards.get("table")
        section = "pseudo_labels" if scored == "pseudo_label" else stage.settings
        if not run.stages[section].needs_chosen:
            return {}
        if section != "pseudo_labels" or not walks:
            # Without a walk the score counts before the refinement, and is not scored at.
            return {} if scored == "pseudo_label" else {"thresholds": f"{folder}/thresholds.json"}
        return {"thresholds": f"{folder}/walk_thresholds.json"}

    return files


def demo_data(wildcards):
    """Input: the generated data, for runs that use them."""
    return [f"{DEMO_ROOT}.sha256"] if CONFIG.data_format(wildcards.run).generator else []


def drawn_masks(wildcards):
    """Input: the record that COCO's masks have been drawn into its folder, for runs on it."""
    drawn = CONFIG.data_format(wildcards.run).draws_masks
    return [f"results/{wildcards.run}/coco_masks.json"] if drawn else []


def index_file(name):
    """Input: a file of the index, which comparisons share with the run they extend."""
    return lambda wildcards: f"results/{CONFIG.index_owner(wildcards.run)}/{name}"


def scored_stages(run):
    """Return the stages that a run's table has."""
    resolved = CONFIG.run(run)
    order = ("cam", "pseudo_label", "segmentation")
    last = order.index(resolved.stop_after)
    stages = list(order[: min(last, 1) + 1]) if resolved.has_cams else []
    if resolved.labels_run is not None and not resolved.has_cams:
        stages = ["self_label"] if last else []
    if last == 2:
        crf = resolved.stages["prediction"].crf
        stages += ["segmentation", "segmentation_crf"] if crf else ["segmentation"]
    return stages


def scores(wildcards):
    """Input: a run's score tables."""
    folder = f"results/{wildcards.run}/evaluation"
    return [f"{folder}/{stage}.csv" for stage in scored_stages(wildcards.run)]


def training_labels(wildcards):
    """Input: what the segmentation model learns from."""
    kind, found = setting(wildcards, "segmentation", "labels"), {}
    if kind != "ground_truth":
        folder = "self_labels" if kind == "predicted" else "pseudo_labels"
        found |= read_folder("labels", f"results/{wildcards.run}/{folder}")
    if kind in ("ground_truth", "mixed"):
        require_masks(wildcards)
        folder = index_file("training_masks")(wildcards)
        found |= {"masks": f"{folder}/masks.csv", "mask_contents": f"{folder}/{MASKS}"}
    return found


def shown_images(wildcards, split):
    """Return the options of a command that draws a few images of a set."""
    stage = CONFIG.run(wildcards.run).stages["evaluation"]
    return words(split=split, names=list(stage.panel_names), count=stage.panel_count)


def seed_images(wildcards):
    """Param: options of a command that draws a few images of the seeds' set."""
    return shown_images(wildcards, setting(wildcards, "evaluation", "seed_split"))


def has_crf(run):
    """Say whether a run's predictions come in two forms."""
    return run.stages["prediction"].crf


def has_reconstructor(run):
    """Say whether a run's classifier is trained against a reconstructor."""
    return cam_method(run).has_reconstructor


def runs_pattern(keep, rows=False):
    """Wildcard constraint: the runs that `keep` holds for; with `rows`, those of methods, too."""
    known = {**CONFIG.runs, **(CONFIG.method_runs if rows else {})}
    return "|".join(re.escape(name) for name, run in known.items() if keep(run)) or "(?!)"
