//! The chapter on faults, row by row: each fault is done to a client over real sockets, and what comes of it is compared with
//! the row.

mod api;
mod caller;
mod endpoint;
mod token_endpoint;

use std::ops::RangeInclusive;

const CHAPTER: &str = include_str!("../../../src/docs/faults.md");

/// The fault of each row with its figures.
fn rows() -> Vec<(&'static str, [&'static str; 3])> {
    let lines = CHAPTER.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [fault, callers_see, token_requests, recovers] = cells[..] else { panic!("{line}") };
            (fault, [callers_see, token_requests, recovers])
        })
        .collect()
}

fn row(fault: &str) -> [&'static str; 3] {
    let row = rows().into_iter().find(|(name, _)| *name == fault);
    row.unwrap_or_else(|| panic!("the chapter has no row {fault:?}")).1
}

/// `3`, `0.8–1.2 s`.
fn range(cell: &str) -> RangeInclusive<f64> {
    let cell = cell.trim_end_matches(" s");
    let (least, most) = cell.split_once('–').unwrap_or((cell, cell));
    let number = |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("{cell:?} has no figures"));
    number(least)..=number(most)
}

#[test]
fn each_row_of_the_chapter_has_a_test() {
    let tests = [include_str!("api.rs"), include_str!("token_endpoint.rs")].concat();
    assert!(rows().len() > 10, "{:?}", rows());
    for (fault, _) in rows() {
        assert!(tests.contains(&format!("\"{fault}\"")), "no test of: {fault}");
    }
}
