"""One image through ``binary_cnn`` and back, number by number: as numbers, text and a figure."""
