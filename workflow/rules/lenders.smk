# What stages read of other runs: a classifier, CAMs, a model that predicts.


def classifier(run):
    """Return the file of a run's classifier, which may be that of the run that lends it."""
    return f"results/{CONFIG.run(run).classifier_run}/cam/model.safetensors"


def own_classifier(wildcards):
    """Input: the classifier whose features are clustered."""
    return {"model": classifier(wildcards.run)}


def cam_inputs(wildcards):
    """Input: a trained classifier and what the export reads beside it, or in its place."""
    run, folder = CONFIG.run(wildcards.run), f"results/{wildcards.run}"
    export = run.stages["export"]
    if cam_method(run).task is None:
        found, lender = {"cam": f"{folder}/config/cam.json"}, run.stages["cam"].cams_run
        return found | ({"other_cams": f"results/{lender}/cams.h5"} if lender else {})
    found = own_classifier(wildcards)
    if export.refine == "lpcam":
        return found | {"clusters": f"{folder}/lpcam.safetensors"}
    if export.refine_from is None:
        return found
    return found | {"attention_model": classifier(export.refine_from)}


def scored_cams(wildcards):
    """Input: a run's CAMs, which may be those of the run that its row is of."""
    return f"results/{CONFIG.run(wildcards.run).lent_cams or wildcards.run}/cams.h5"


def anchor_model(wildcards):
    """Input: the frozen classifier of a training, where it is another run's."""
    lender = CONFIG.run(wildcards.run).stages["cam"].anchor_run
    return {} if lender is None else {"anchor_model": classifier(lender)}


def teacher_model(wildcards):
    """Input: the model that predicts a run's training images, another run's."""
    teacher = CONFIG.run(wildcards.run).labels_run
    return {"model": f"results/{teacher}/segmentation/model.safetensors"}
