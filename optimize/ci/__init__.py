"""What CI services read of finished runs: JUnit's test cases, GitHub's annotations and summaries, a comment."""
