"""Classical filtering of depth that is as large as colour, or nearly: :class:`GuidedTemporalFilter`."""

from stdnet_core.filtering.filter import Filtered, GuidedTemporalFilter

__all__ = ["Filtered", "GuidedTemporalFilter"]
