"""How good depth is.

Methods run side by side on a sequence (``methods``, ``sequence``) and get figures (``scoring``, from the pure functions
of ``metric_functions``); recordings without truth are judged by themselves (``recording``), and all methods on every
depth camera (``judge``)."""

from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.sequence import EvaluationFrame, SequenceResult, evaluate_sequence

__all__ = ["EvaluationFrame", "Runner", "SequenceResult", "evaluate_sequence"]
