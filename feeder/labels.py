"""Read the label pickle of a split without running code that may be in it."""

import pickle
import struct
from pathlib import Path

from feeder.cli import UserError

# numpy's codes of plain numbers and their struct codes.
_CODES = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f4": "f", "f8": "d"}


def load_labels(path: Path) -> tuple[list[str], list[int]]:
    """Return (names, labels) of a label pickle; whole-numbered floats, as some repositories store, become ints.

    Raises:
        UserError: the file is damaged, needs a type besides lists, tuples, strings and numbers, or is not a pair of lists.
    """
    try:
        with open(path, "rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable label file ({reason}); prepare the data again") from None
    if type(content) not in (tuple, list) or [type(part) for part in content] not in ([list, list], [tuple, tuple]):
        raise UserError(f"{path}: not a pair of lists (names, labels); prepare the data again")
    names, labels = content
    if len(names) != len(labels):
        raise UserError(f"{path}: {len(names)} names but {len(labels)} labels; prepare the data again")
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        if not isinstance(name, str):
            raise UserError(f"{path}: sample {row}: the name is {name!r}, not text; prepare the data again")
        if type(label) not in (int, float) or not 0 <= label < 2**31 or label != int(label):
            raise UserError(f"{path}: sample {row}: label {label!r} is not a class number from 0; prepare the data again")
    return list(names), [int(label) for label in labels]


class _PlainUnpickler(pickle.Unpickler):
    """Builds built-in values only; the few globals that pickled numpy scalars name become the functions below."""

    def find_class(self, module: str, name: str) -> object:
        if name == "dtype" and module == "numpy":
            return _Dtype
        if name == "scalar" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _scalar
        if (module, name) == ("_codecs", "encode"):  # bytes under protocols 0 to 2
            return _encode
        raise pickle.UnpicklingError(f"it holds {module}.{name}, not just names and numbers")


class _Dtype:
    """Stands for numpy.dtype("<i8") and the like: a code and, once the state is set, a byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self.code, self.order = _CODES[code], "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(dtype: _Dtype, data: bytes | str) -> int | float:
    data = data if isinstance(data, bytes) else data.encode("latin1")  # a Python 2 string
    return struct.unpack(dtype.order + dtype.code, data)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")
