"""Code that is not ours: what `_target_` names, what is asked of it, and when it may be run."""
