"""Pictures and labels: where they come from, the set that a run uses, and the batches that a model sees.

Nothing here knows Hydra, models or optimizers. A source of one's own implements `source.Source`.
"""
