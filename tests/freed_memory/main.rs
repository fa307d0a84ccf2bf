//! The crate overwrites its copies of client secrets before it frees their memory.
//!
//! Unlike in `tests/memory_search`, the allocator keeps the bytes of freed blocks. A copy that was
//! freed without being overwritten is found, unless its memory was used again. This depends on the
//! allocator of glibc.
//!
//! The test has a binary of its own because other tests would use the freed memory again.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a panic is how a test fails

#[path = "../memory_search/client_secret.rs"]
mod client_secret;
#[path = "../memory_search/hidden_text.rs"]
mod hidden_text;

use hidden_text::HiddenText;

#[test]
fn dropped_cache_has_overwritten_its_client_secrets() {
    let freed = HiddenText::random();
    // The allocator writes to the begin of a freed block, so that the text must not begin there.
    drop(["x".repeat(64), freed.reveal()].concat());
    assert!(freed.count_in_memory() > 0, "the search finds freed memory");
    client_secret::check_that_no_secret_is_left(client_secret::token);
}
