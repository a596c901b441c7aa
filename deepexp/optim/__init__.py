"""What moves the weights: optimizers, parameter groups, schedules, freezing, averaging.

Only optimizers that torch lacks are written here; `conf/optim` names the others. Nothing in this
package knows models, data or Hydra.
"""
