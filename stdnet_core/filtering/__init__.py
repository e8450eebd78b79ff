"""Classical filtering of depth at or near colour's resolution: :class:`GuidedTemporalFilter`."""

from stdnet_core.filtering.filter import Filtered, GuidedTemporalFilter

__all__ = ["Filtered", "GuidedTemporalFilter"]
