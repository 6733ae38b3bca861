"""The configuration files, as a package, so that an installed wheel finds them."""
