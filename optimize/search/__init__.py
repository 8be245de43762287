"""Where candidates come from: those that a pipeline names, or those that a search finds by pruning before them."""
