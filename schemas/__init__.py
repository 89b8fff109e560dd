"""What capo's rows, configurations and references look like. Depends on pydantic, polars and pyarrow only."""
