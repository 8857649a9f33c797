//! How are labels rewritten? Compiles relabel rules, rewrites label sets.
