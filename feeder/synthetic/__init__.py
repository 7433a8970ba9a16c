"""Synthetic people written as raw files of NTU RGB+D or PKU-MMD."""

from feeder.synthetic.files import write_ntu, write_pku
from feeder.synthetic.motions import ACTIONS, make_clip

__all__ = ["ACTIONS", "make_clip", "write_ntu", "write_pku"]
