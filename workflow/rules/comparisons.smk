# What the rules share that set results side by side: ablations, methods, figures.
from wsss.errors import UserError


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
