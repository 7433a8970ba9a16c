"""Read pickles of plain values and of NumPy arrays without running code that they contain."""

import pickle
import re
from pathlib import Path

import numpy as np


def load_plain(path: Path) -> object:
    """Return the content of a pickle: built-in values, and NumPy scalars and arrays of numbers and strings.

    The text of Python 2 is decoded as Latin-1. Large arrays share the memory of the bytes that were read.

    Raises:
        ValueError: the pickle is damaged or contains anything else; the message is one line without the path.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any error
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        """Return our replacement of a global; a pickle may call nothing else."""
        key = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if key not in _GLOBALS:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, not only numbers and text")
        return _GLOBALS[key]


class _Dtype:
    """Replaces numpy.dtype, whose __setstate__ is not safe, for numbers, text and objects."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[iu][1248]|f[248]|[SU][1-9]\d*|O8?", code):
            raise pickle.UnpicklingError(f"it contains the data type {code}, not only numbers and text")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Replaces numpy.ndarray, so that the data type of a pickled state is checked."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran_order, data = state  # data is a list if the data type is object
        super().__setstate__((version, shape, dtype.dtype, fortran_order, _bytes(data)))


def _bytes(data: object) -> object:
    return data.encode("latin1") if isinstance(data, str) else data  # Python 2 had one type for both


# the globals of pickles of NumPy values, and our replacements
_GLOBALS = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": "ndarray",  # an argument of `_reconstruct`, not used
    "numpy.core.multiarray._reconstruct": lambda *_: _Array((0,), np.int8),
    "numpy.core.multiarray.scalar": lambda dtype, data: np.frombuffer(_bytes(data), dtype.dtype)[0].item(),
    "numpy.core.numeric._frombuffer": lambda data, dtype, shape, order: (  # protocol 5
        np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    ),
    "_codecs.encode": lambda text, _encoding: text.encode("latin1"),  # bytes, under protocols 0 to 2
}
