//! The chapter on faults, row by row: each fault happens to a client over real sockets, and what
//! the client observes is compared with the row.

mod api;
mod caller;
mod endpoint;
mod token_endpoint;

use crate::chapter_table::ChapterTable;

/// The columns are: fault, callers see, token requests, recovers after.
fn table() -> ChapterTable<4> {
    ChapterTable::read(include_str!("../../../src/docs/faults.md"))
}

#[test]
fn each_row_of_the_chapter_has_a_test() {
    let tests = [include_str!("api.rs"), include_str!("token_endpoint.rs")].concat();
    table().assert_each_row_is_tested(&tests, 11);
}
