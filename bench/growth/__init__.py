"""Cost against size: each measure by itself, at the sizes that it is given."""
