"""Prefect server, MLflow server and a worker on this machine, kept running by supervisord."""
