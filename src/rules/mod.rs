//! What follows from the data? Recording and alerting groups.
