"""The pictures of a report, one file for each kind. Each draws from runs that were read, or says why it cannot."""
