"""What the stages that prune are made of: costs, evidence, search, and repair."""
