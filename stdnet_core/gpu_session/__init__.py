"""Sessions on a GPU that is available only for minutes: ``bash scripts/gpu_session.sh`` (docs/gpu.md)."""
