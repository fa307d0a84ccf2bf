//! Tables in Markdown.

/// Returns a table with the given head and rows.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<_> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let separator = vec!["---".to_owned(); head.len()];
    let lines = [head, separator].into_iter().chain(rows);
    lines.map(|cells| line(&cells)).collect()
}
