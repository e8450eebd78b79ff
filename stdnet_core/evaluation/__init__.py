"""Evaluation of depth.

Methods run side by side on a sequence (``methods``, ``sequence``) and are scored (``scoring``, with the pure functions
of ``metric_functions``). ``recording`` scores recordings without ground truth, and ``judge`` compares all methods on
every depth camera."""

from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.sequence import EvaluationFrame, SequenceResult, evaluate_sequence

__all__ = ["EvaluationFrame", "Runner", "SequenceResult", "evaluate_sequence"]
