"""A quantizer and a method for qbench."""
