"""Data: raw recordings, normalised arrays, batches, augmentations. Import the modules directly."""

import sys

if sys.platform == "win32":
    sys.exit("this program runs on Linux and macOS; on Windows use WSL")
