"""Code that the scripts share, one topic in each module; results, predict and draw are commands."""

import feeder  # noqa: F401  first: it rejects Windows with a one-line error
