//! What did the operator type? Subcommands and flags.
