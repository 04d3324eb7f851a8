"""The words of a report, explained where they occur."""

from collections.abc import Collection

ARMS = {
    "dense": "the whole network.",
    "winning": "the mask of iterative magnitude pruning, started from the state at the rewind step.",
    "random": "the same mask from a fresh initialization.",
    "random_pruned": "a random mask of the same sparsity in every layer, started from the rewind step.",
    "one_shot": "pruned at once instead of round by round.",
    "snip": "pruned at initialization, by connection sensitivity, and trained.",
    "grasp": "pruned at initialization, by gradient flow, and trained.",
    "early_bird": "what is left of the dense network once the mask of its channels settled and those channels were "
    "removed, trained on; its sparsity is the share of channels.",
    "early_bird_mixed": "an early bird that trains on in mixed precision.",
    "transfer": "mask and rewound weights that another search found for a component, in a network that begins anew.",
}
SPARSITY = "the share of the whole network's weights that is pruned."
WINNING_SPARSITY = (
    "the largest sparsity at which the winning mean is within the tolerance of the dense mean (the larger of one dense "
    "standard deviation and 10 %; 10 points of FID; or as configured) and the random arm is significantly worse "
    "(one-sided Welch test, p < 0.05)."
)
STRICT = (
    "the same, but the winning mean is within the tolerance at all lower sparsities, too, and p is corrected by Holm's "
    "method for how many sparsities are tested; it takes three seeds."
)
METRICS = {
    "reconstruction_loss": "mean squared error a pixel on held-out images.",
    "loss": "negative evidence lower bound an image (VAEs) or the training loss of the network.",
    "kl": "Kullback-Leibler term of a VAE's loss.",
    "fid": "Frechet Inception distance of generated and training images.",
    "fd_dinov2": "Frechet distance of generated and training images in the features of DINOv2; not FID.",
    "fd_": "Frechet distance of generated and training images in the features of a classifier; not FID.",
    "cmmd": "maximum mean discrepancy of generated and training images in the features of CLIP.",
    "inception_score": "of generated images, in the classes of Inception.",
    "is_": "Inception score in the classes of a classifier.",
    "accuracy_on_originals": "of a classifier on the held-out images themselves.",
    "accuracy": "of a classifier on reconstructions of held-out images.",
    "precision": "share of samples that lie among the training images.",
    "recall": "share of training images that lie among the samples.",
    "discriminator_loss": "loss of a GAN's discriminator, whose values are neither good nor bad by themselves.",
    "generator_loss": "loss of a GAN's generator, whose values are neither good nor bad by themselves.",
}


def occurring(arms: Collection[str], metrics: Collection[str]) -> list[tuple[str, str]]:
    """Terms and explanations, of arms and metrics that a report shows."""
    found = [(arm, text) for arm, text in ARMS.items() if arm in arms]
    for name in metrics:
        prefix = next((p for p in METRICS if name.startswith(p)), None)
        if prefix is not None:
            found.append((name, METRICS[prefix]))
    if set(arms) - {"dense"}:
        found.append(("sparsity", SPARSITY))
    if "winning" in arms:
        found += [("winning_sparsity", WINNING_SPARSITY), ("strict_winning_sparsity", STRICT)]
    return found
