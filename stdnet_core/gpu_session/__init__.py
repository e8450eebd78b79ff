"""A GPU that is there for minutes: ``bash scripts/gpu_session.sh`` (docs/gpu.md)."""
