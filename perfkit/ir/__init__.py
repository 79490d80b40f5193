"""The frozen intermediate representation: affine and value expressions, SCoPs, loop trees."""
