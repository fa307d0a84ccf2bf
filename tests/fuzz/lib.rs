//! The fuzz targets as a library for the binaries of `cargo fuzz`.

#![allow(missing_docs)]

mod targets;

pub use targets::*;
use url::Url;
