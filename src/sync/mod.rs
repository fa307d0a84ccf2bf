//! The types that threads share, named in one place so that [loom](https://docs.rs/loom) can
//! replace them.
//!
//! With `--cfg tower_oauth_loom` the mutex is loom's, and the lock-free pointer and the channel,
//! which loom cannot look into, are replaced by small types that are built on that mutex.
//! `cache/loom_tests.rs` runs on them.

mod lock;
#[cfg(all(test, tower_oauth_loom))]
mod loom_replacements;

#[cfg(not(all(test, tower_oauth_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(not(all(test, tower_oauth_loom)))]
pub(crate) use arc_swap::ArcSwapOption;
#[cfg(all(test, tower_oauth_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, tower_oauth_loom)))]
pub(crate) use tokio::sync::watch;

pub(crate) use lock::{lock, try_lock};
#[cfg(all(test, tower_oauth_loom))]
pub(crate) use loom_replacements::{ArcSwapOption, watch};
