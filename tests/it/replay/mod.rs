//! Bodies that are streams: sent again whole, or not at all.

mod property;
mod table;
