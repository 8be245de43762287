"""Files of others and of users: read once and within bounds, written whole or not at all, and swept when left."""
