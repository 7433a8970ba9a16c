"""Synthetic people, recorded as raw files of NTU RGB+D."""

from feeder.synthetic.recordings import ACTIONS, write_ntu

__all__ = ["ACTIONS", "write_ntu"]
