//! What is not yet in a stripe: the open rows of every axis.
//!
//! Rows are kept as they are written to the log, as differences from the row
//! before ([`row`]); an [`open::OpenStripe`] holds those of one axis, decodes
//! them for readers, and is frozen when it is full. [`write`] finds the axis
//! that a sample belongs to.

pub(crate) mod histogram;
pub(crate) mod open;
pub(crate) mod repeat;
pub(crate) mod row;
pub(crate) mod write;
