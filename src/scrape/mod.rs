//! What do the targets say? Pools, loops, exposition formats, staleness.
