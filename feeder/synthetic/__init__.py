"""Synthetic people, written as raw files of NTU RGB+D or PKU-MMD."""

from feeder.synthetic.files import write_ntu, write_pku
from feeder.synthetic.motions import ACTIONS

__all__ = ["ACTIONS", "write_ntu", "write_pku"]
