"""``edgeloop bench``: measurements of the loop that take seconds to minutes, with targets that can be missed."""
