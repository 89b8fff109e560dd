"""One thin Prefect task per step: read artifacts, call one core function, write an artifact, log."""
