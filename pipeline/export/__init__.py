"""A prepared data set in the forms that other programs read, one module a family of programs."""
