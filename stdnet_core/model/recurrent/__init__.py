"""The recurrent network, for any depth camera: causal, with one state carried from frame to frame."""

from stdnet_core.model.recurrent.config import RecurrentConfig
from stdnet_core.model.recurrent.network import MULTIPLE, RecurrentNet, RecurrentOutput, RecurrentState, padded_size

__all__ = ["MULTIPLE", "RecurrentConfig", "RecurrentNet", "RecurrentOutput", "RecurrentState", "padded_size"]
