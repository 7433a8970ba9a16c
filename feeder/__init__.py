"""Data: raw recordings, normalised arrays, batches, augmentations. Import the module you need."""
