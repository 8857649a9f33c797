//! `crate::scrape` without what needs the network: a page's way to a row.

#[path = "../../../src/scrape/cache.rs"]
pub mod cache;
#[path = "../../../src/scrape/exposed.rs"]
pub mod exposed;
#[path = "../../../src/scrape/family.rs"]
mod family;
#[path = "../../../src/scrape/labels.rs"]
pub mod labels;
#[path = "../../../src/scrape/metadata.rs"]
pub mod metadata;
#[path = "../../../src/scrape/negotiation.rs"]
pub mod negotiation;
#[path = "../../../src/scrape/page.rs"]
pub mod page;
#[path = "../../../src/scrape/scanner/mod.rs"]
pub mod scanner;
