# What the rules share that score and show results, of one run or of several side by side.
from wsss.errors import UserError


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


def ablation_rows(wildcards):
    """Return the run behind each row of an ablation table."""
    table = {"ablation": "variants", "ablation_q": "q"}[wildcards.table]
    return CONFIG.ablation(wildcards.run, table)


def ablation_scores(wildcards):
    """Input: the CAM scores of every row of a table."""
    return [f"results/{run}/evaluation/cam.csv" for run in ablation_rows(wildcards).values()]


def ablation_options(wildcards):
    """Param: `row=path` for every row of a table."""
    rows = zip(ablation_rows(wildcards), ablation_scores(wildcards), strict=True)
    return words(scores=[f"{row}={path}" for row, path in rows])


def method_scores(wildcards):
    """Return method.seed-N.stage -> score table of every method and seed, as far as they go."""
    found = {}
    for row, by_seed in CONFIG.methods(wildcards.run).items():
        for seed, run in by_seed.items():
            child = f"{row}.seed-{seed}"
            for stage in scored_stages(f"{wildcards.run}/methods/{child}"):
                found[f"{child}.{stage}"] = f"results/{run}/evaluation/{stage}.csv"
    return found


def method_options(wildcards):
    """Param: `method.seed-N.stage=path` for every score table."""
    return words(scores=[f"{name}={path}" for name, path in method_scores(wildcards).items()])


def figure_path(run, what):
    """Return what a figure shows of a run: its CAMs, or its predictions, with CRF where it has
    them."""
    if what == "cam":
        return f"results/{run}/cams.h5"
    return f"results/{run}/predictions{'_crf' if has_crf(CONFIG.run(run)) else ''}"


def figure_sources(*names):
    """Input: what a figure shows of the runs that these wildcards name."""

    def files(wildcards):
        found = {}
        for name in names:
            path = figure_path(wildcards[name], wildcards.what)
            found |= {name: path} if wildcards.what == "cam" else read_folder(name, path)
        return found

    return files


def figure_options(*names):
    """Param: the columns of a figure, and the images that it shows."""

    def options(wildcards):
        is_cam = wildcards.what == "cam"
        title, key = ("CAM", "cams") if is_cam else ("DeepLab", "labels")
        paths = [(wildcards[name], figure_path(wildcards[name], wildcards.what)) for name in names]
        columns = words(**{key: [f"{title}: {run}={path}" for run, path in paths]})
        if is_cam:
            return f"{columns} {seed_images(wildcards)}"
        return f"{columns} {shown_images(wildcards, setting(wildcards, 'prediction', 'split'))}"

    return options


def figure_manifests(wildcards):
    """Input: the figures of a run, or of a run and another, as far as both go."""
    other = wildcards.get("other", wildcards.run)
    stages = set(scored_stages(wildcards.run)) & set(scored_stages(other))
    kinds = [kind for kind in ("cam", "segmentation") if kind in stages]
    folder = f"results/{wildcards.run}/figures"
    if "other" in wildcards.keys():
        folder = f"{folder}/versus-{other}"
    elif "cam" in kinds and wildcards.run in CONFIG.runs and has_reconstructor(CONFIG.run(other)):
        # Another run's classifier is shown with that run, which has its reconstructor.
        if CONFIG.run(other).classifier_run == other:
            kinds.append("reconstructions")
    if not kinds:
        raise UserError(
            f"{wildcards.run} and {other} have no results that can be compared",
            where=f"{folder}.sha256",
            expected="runs that both make CAMs, or both a segmentation",
        )
    return [f"{folder}/{kind}.sha256" for kind in kinds]
