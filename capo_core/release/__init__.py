"""What leaves the house: data sets and adapters in the Hugging Face layout, with cards that say what they are."""
