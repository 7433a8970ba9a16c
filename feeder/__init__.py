"""Data: raw recordings, normalised arrays, batches, augmentations. Import the modules directly."""
