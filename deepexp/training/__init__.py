"""What an epoch is made of, beside the one update in `step.py`; the loop over epochs is in `trainer.py`."""
