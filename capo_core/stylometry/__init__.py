"""Who wrote an explanation: reductions of the text, attribution of groups to annotators, stability of style."""
