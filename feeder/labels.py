"""Read the label pickle of a split without running code in it."""

import pickle
from pathlib import Path

import numpy as np

from feeder.cli import UserError


def load_labels(path: Path) -> tuple[list[str], list[int]]:
    """Return (names, labels) of a label pickle; integer-valued floats, as some repositories store, become ints."""
    try:
        with open(path, "rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()
        if type(content) not in (tuple, list) or [type(part) for part in content] not in (
            [list, list],
            [tuple, tuple],
        ):
            raise ValueError("not a pair of lists (names, labels)")
        names, labels = content
        if len(names) != len(labels):
            raise ValueError(f"{len(names)} names but {len(labels)} labels")
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            if not isinstance(name, str):
                raise ValueError(f"sample {row}: the name is {name!r}, not text")
            if type(label) not in (int, float) or not 0 <= label < 2**31 or label != int(label):
                raise ValueError(f"sample {row}: label {label!r} is not a class number from 0")
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable label file: {reason}; prepare the data again") from None
    return list(names), [int(label) for label in labels]


class _PlainUnpickler(pickle.Unpickler):
    """Build only built-in values; the few globals of pickled NumPy scalars are replaced by the functions below."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if name == "scalar" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _scalar
        if (module, name) == ("_codecs", "encode"):  # bytes under protocols 0 to 2
            return lambda text, _encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it contains {module}.{name}, not only names and numbers")


class _Dtype:
    """Replaces numpy.dtype, whose __setstate__ is not safe."""

    def __init__(self, code: str, *_: bool) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


def _scalar(dtype: _Dtype, data: bytes | str) -> int | float:
    if dtype.code not in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8") or dtype.order not in (
        "<",
        ">",
        "|",
    ):
        raise pickle.UnpicklingError(f"it contains a {dtype.code}, not only names and numbers")
    data = data.encode("latin1") if isinstance(data, str) else data  # a Python 2 string
    return np.frombuffer(data, dtype.order + dtype.code)[0].item()
