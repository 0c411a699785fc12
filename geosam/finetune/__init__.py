"""Training a small SAM: samples with the prompts it will meet, losses, and one loop."""
