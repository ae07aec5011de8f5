"""Probes: what latents and codes know, read out by small learners. Arrays and labels in, predictions out.

protocol      what a benchmark prescribes, as YAML (`protocols/`): a recipe for each kind of task
folds         which clips are learned from, chosen by, and tested on
targets       labels as arrays
train         many runs (folds, seeds, learning rates) of one learner, trained as one batched model
learn         a recipe on the features and targets of a dataset: predictions of every test clip
measures      accuracy, macro F1, average precision, ROC-AUC, R2, from predictions
baselines     what is scored without looking: the most frequent class, the mean

Learners, one a file: `linear`, `mlp` (layer norm and linear), `conv` (squeeze-excitation), `knn`, `frames` (a head for
every frame, for events), `verification` (cosine trials, nothing is trained).
"""
