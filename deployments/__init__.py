"""Every way capo is started: the command line, the Prefect deployments and the experiment configurations."""
