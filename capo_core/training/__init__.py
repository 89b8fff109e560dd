"""Training of adapters: supervised fine-tuning on one person's responses, then preference over the others'."""
