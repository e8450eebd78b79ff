"""What the commands ``evaluate`` and ``analyze`` do: runs of the evaluation that end as pages, pictures and tables."""
