"""What prefect.yaml cannot say: block types and work pools."""
