"""The machine: what it has, what it grants this process, and what its libraries would tell others about it."""
