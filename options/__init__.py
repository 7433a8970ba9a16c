"""What a run may choose: flags, YAML recipes, the table of data sets."""
