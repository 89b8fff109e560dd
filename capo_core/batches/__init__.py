"""What later batches of annotations do to a corpus: how it grows, who drifted, what to ask next."""
