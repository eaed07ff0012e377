# What the data sets contain, as the params and inputs by which Snakemake sees that they changed.
from functools import cache

# Digests of the data sets' files, of this machine alone.
MEMORY = "results/.digests"


@cache
def fingerprint(root, settings, function_name):
    """Return a fingerprint of a data set, looked at once a start."""
    from wsss.data import build, fingerprints

    with fingerprints.remembered(Path(MEMORY), root):
        return getattr(build, function_name)(settings, root)


def listing(wildcards, function_name):
    """Param: fingerprint of a data set's lists, looked at only by targets that need them."""
    root, settings = CONFIG.existing_root(wildcards.run), CONFIG.run(wildcards.run).stages["index"]
    return fingerprint(root, settings, function_name)


def image_list(wildcards):
    """Param: fingerprint of a data set's lists and pictures, for its index.

    Classes that would get other numbers are refused here: Snakemake removes the index that is there
    before its stage could compare."""
    from wsss.data import build, fingerprints

    found = listing(wildcards, "listing_fingerprint")
    root, settings = CONFIG.existing_root(wildcards.run), CONFIG.run(wildcards.run).stages["index"]
    classes = Path(f"results/{wildcards.run}/classes.txt")
    with fingerprints.remembered(Path(MEMORY), root):
        build.check_class_order(settings, root, classes, found)
    return found


@cache
def maps_fingerprint(folder):
    """Return a fingerprint of a folder of another program's maps, looked at once a start."""
    from wsss.data import fingerprints

    with fingerprints.remembered(Path(MEMORY), folder):
        return fingerprints.tree_digest(folder)


@cache
def masks_to_learn(root, settings, kind):
    """Return a fingerprint of the masks of pictures that are trained on, looked at once a start."""
    from wsss.data import fingerprints, indexing

    with fingerprints.remembered(Path(MEMORY), root):
        return indexing.training_mask_fingerprint(settings, root, kind)


def training_masks(wildcards, kind=None):
    """Param: fingerprint of the masks that a segmentation can learn from."""
    root, settings = CONFIG.existing_root(wildcards.run), CONFIG.run(wildcards.run).stages["index"]
    return masks_to_learn(root, settings, kind)


def require_masks(wildcards):
    """Refuse, in plans, a segmentation that lacks the masks that it is to learn from."""
    training_masks(wildcards, setting(wildcards, "segmentation", "labels"))
