"""The story of each job, readable by an operator."""
