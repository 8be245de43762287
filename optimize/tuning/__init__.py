"""Fine-tuning with a search over hyperparameters: planned, loaded, trained trial by trial here or on Ray, written."""
