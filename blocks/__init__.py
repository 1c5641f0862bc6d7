"""What operators edit in the Prefect UI. Secrets are masked there and never leave a block in clear."""
