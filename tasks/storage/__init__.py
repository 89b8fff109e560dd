"""Where artifacts, their lineage and results are kept: a folder of this machine, and a URL that machines share."""
