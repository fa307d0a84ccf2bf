//! Reads the table of a documentation chapter, so that tests can compare each row with a
//! measurement.

/// The first Markdown table of a chapter, with `N` columns. The first cell of a row is its label.
pub(crate) struct ChapterTable<const N: usize>(Vec<[&'static str; N]>);

impl<const N: usize> ChapterTable<N> {
    /// Reads the table. Panics if a row does not have `N` cells.
    pub(crate) fn read(chapter: &'static str) -> Self {
        let lines = chapter.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
        let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            cells.try_into().unwrap_or_else(|_| panic!("not a row of {N} cells: {line}"))
        });
        Self(rows.collect())
    }

    /// Returns the row with this label. Panics if there is none.
    pub(crate) fn row(&self, label: &str) -> [&'static str; N] {
        let row = self.0.iter().find(|row| row[0] == label);
        *row.unwrap_or_else(|| panic!("the chapter has no row {label:?}"))
    }

    /// Checks that the table has at least `minimum` rows, and that the source text of the tests
    /// uses each row: its label is the first argument of `row(..)` or of `assert_row(..)`.
    pub(crate) fn assert_each_row_is_tested(&self, tests: &str, minimum: usize) {
        assert!(self.0.len() >= minimum, "the table has {} rows only", self.0.len());
        for row in &self.0 {
            let quoted = format!("\"{}\"", row[0]);
            let mut places = tests.match_indices(&quoted);
            let is_used = places.any(|(at, _)| tests[..at].trim_end().ends_with("row("));
            assert!(is_used, "the row {quoted} has no test");
        }
    }
}
