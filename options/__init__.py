"""Options of the scripts: flags, YAML recipes, the table of data sets."""
