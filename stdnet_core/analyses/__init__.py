"""The work of the commands ``evaluate`` and ``analyze``: evaluations whose results are pages, pictures and tables."""
