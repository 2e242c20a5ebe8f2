"""Helpers that know nothing of networks or training data."""
from elektronn2.utils.basic import h5load, h5save, pretty_string_ops, pretty_string_time
from elektronn2.utils.cnncalculator import (
                                            cnncalculator,
                                            get_cloesest_valid_patch_size,
                                            get_closest_valid_patch_size,
                                            get_valid_patch_sizes,
)

__all__ = ["cnncalculator", "get_cloesest_valid_patch_size", "get_closest_valid_patch_size",
           "get_valid_patch_sizes", "h5load", "h5save", "pretty_string_ops", "pretty_string_time"]
