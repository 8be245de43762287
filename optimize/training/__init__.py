"""What the stages that train are made of: batches, losses, the loop, and what outlives a kill."""
