//! Bodies that are streams: sent again whole, or not at all.

mod connection;
mod property;
mod table;
