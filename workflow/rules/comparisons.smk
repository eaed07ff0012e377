# What the rules of ablations and figures share: results of several runs side by side.


def ablation_scores(table):
    """Input: the CAM scores of every row of a table."""

    def scores(wildcards):
        members = CONFIG.ablation(wildcards.run, table).values()
        return [f"results/{member}/evaluation/cam.csv" for member in members]

    return scores


def ablation_entries(table):
    """Param, derived from inputs: `row=path` for every row of a table."""

    def entries(wildcards, input):
        members = CONFIG.ablation(wildcards.run, table)
        return [f"{row}={path}" for row, path in zip(members, input.scores, strict=True)]

    return entries


def predicted(run):
    """Return the folder of a run's predictions, with CRF where it has them."""
    return f"results/{run}/predictions{'_crf' if has_crf(CONFIG.run(run)) else ''}"


def predictions(*names):
    """Input: the predictions of the runs that these wildcards name."""
    return lambda wildcards: {
        key: value
        for name in names
        for folder in [predicted(wildcards[name])]
        for key, value in {name: ancient(folder), f"{name}_sha": f"{folder}.sha256"}.items()
    }


def columns(title, *names):
    """Param, derived from inputs: `title: run=path` of the inputs named after these wildcards."""
    return lambda wildcards, input: [
        f"{title}: {wildcards[name]}={input.get(name)}" for name in names
    ]


def figure_manifests(wildcards):
    """Input: the figures of a run, or of a run and another, as far as both go."""
    other = wildcards.get("other", wildcards.run)
    stages = set(scored_stages(wildcards.run)) & set(scored_stages(other))
    kinds = [kind for kind in ("cam", "segmentation") if kind in stages]
    folder = f"results/{wildcards.run}/figures"
    if "other" in wildcards.keys():
        folder = f"{folder}/versus-{other}"
    elif "cam" in kinds and wildcards.run in CONFIG.runs and has_reconstructor(CONFIG.run(other)):
        kinds.append("reconstructions")
    if not kinds:
        raise ValueError(f"{wildcards.run} and {other} have no results that can be compared")
    return [f"{folder}/{kind}.sha256" for kind in kinds]
