"""The model of a run, loaded again: tested, asked for predictions, exported."""
