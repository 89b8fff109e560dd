"""The method: pure functions over frames and models. No Prefect, no MLflow, no global state; randomness comes in."""
