"""The model of a run taken up again: tested, asked about pictures, exported."""
