"""Code of the user's own: what `_target_` names, how it is checked, and when it may be run."""
