# What the rules share that score and show a run's results.


def shows_seeds(run):
    """Say whether a run makes labels of training images, which its panels then show."""
    return not {"cam", "self_label"}.isdisjoint(scored_stages(run))


def shown(wildcards):
    """Input: what the panels show. The seeds' images are not those that the run predicts, so
    that the model sees a sample of them for this."""
    folder = f"results/{wildcards.run}"
    stages = scored_stages(wildcards.run)
    found = {"cams": f"{folder}/cams.h5"} if "cam" in stages else {}
    folders = {}
    for stage in ("pseudo_label", "self_label"):
        if stage in stages:
            folders["pseudo_labels"] = f"{folder}/{stage}s"
    if "segmentation" in stages:
        seeds = shows_seeds(wildcards.run)
        folders["predictions"] = f"{folder}/{'sample' if seeds else 'predictions'}"
    for name, path in folders.items():
        found |= read_folder(name, path)
    return found


def scored_maps(wildcards):
    """Input: the maps that a table scores."""
    if wildcards.table == "cam":
        return scored_cams(wildcards)
    return f"results/{wildcards.run}/walked.h5"


def scored_maps_options(wildcards):
    """Param: what is scored at which background score, and its names in the table."""
    section, key = {
        "cam": ("evaluation", "cam_threshold"),
        "pseudo_label": ("pseudo_labels", "score_threshold"),
    }[wildcards.table]
    is_chosen = bool(chosen_scores(STAGES["score_maps"])(wildcards))
    return words(
        run=wildcards.run,
        stage=wildcards.table,
        split=setting(wildcards, "evaluation", "seed_split"),
        background=None if is_chosen else setting(wildcards, section, key),
    )


def scored_labels(wildcards):
    """Input: the label PNGs that a table scores."""
    folders = {"self_label": "self_labels", "segmentation_crf": "predictions_crf"}
    folder = folders.get(wildcards.table, "predictions")
    return read_folder("labels", f"results/{wildcards.run}/{folder}")


def scored_labels_options(wildcards):
    """Param: what is scored, and its names in the table."""
    place = ("prediction", "split")
    if wildcards.table == "self_label":
        place = ("evaluation", "seed_split")
    teacher = CONFIG.run(wildcards.run).labels_run
    return words(
        run=wildcards.run,
        stage=wildcards.table,
        split=setting(wildcards, *place),
        labels_kind=teacher or setting(wildcards, "segmentation", "labels"),
    )


def needed_sets(run):
    """Return the image sets that a run predicts and scores."""
    stages, settings = scored_stages(run), CONFIG.run(run).stages
    found = [settings["evaluation"].seed_split] if shows_seeds(run) else []
    found += [settings["prediction"].split] if "segmentation" in stages else []
    return list(dict.fromkeys(found))


def final_labels(wildcards):
    """Input: a run's predictions, after the CRF where it has one."""
    crf = "_crf" if has_crf(CONFIG.run(wildcards.run)) else ""
    return read_folder("labels", f"results/{wildcards.run}/predictions{crf}")


def scored_tags_options(wildcards):
    """Param: what is compared with the tags of which set."""
    crf = "_crf" if has_crf(CONFIG.run(wildcards.run)) else ""
    split = setting(wildcards, "prediction", "split")
    return words(run=wildcards.run, stage=f"segmentation{crf}", split=split)


def everything(wildcards):
    """Input: the model, predictions, scores and pictures of a run, as far as it goes."""
    folder, run = f"results/{wildcards.run}", CONFIG.run(wildcards.run)
    found = [f"{folder}/miou.csv", f"{folder}/panels.sha256"]
    if "segmentation" not in scored_stages(wildcards.run):
        return [*found, f"{folder}/{'cams.h5' if run.has_cams else 'self_labels.sha256'}"]
    manifests = ["predictions", "predictions_crf"] if has_crf(run) else ["predictions"]
    found += [f"{folder}/{name}.sha256" for name in manifests]
    return [*found, f"{folder}/segmentation/model.safetensors", f"{folder}/tags.csv"]


def captioned(found, key, caption, **how):
    """Output: with one of a stage's results in `snakemake --report`, under its run."""
    place = f"../report/{caption}.rst"
    return found | {key: report(found[key], caption=place, category="{run}", **how)}


def panel_images(wildcards):
    """Param: the images that the panels show."""
    if shows_seeds(wildcards.run):
        return seed_images(wildcards)
    return shown_images(wildcards, setting(wildcards, "prediction", "split"))
