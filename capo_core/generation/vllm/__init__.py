"""Generation by vLLM, where it is installed: what it takes, a server for the time of one step, responses through it."""
