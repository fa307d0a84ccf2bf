//! The code in the README is copied from code that is compiled.

use std::{collections::BTreeSet, fs, path::Path};

/// Each line must be in the documentation of the crate or in an example.
#[test]
fn code_in_the_readme_is_compiled_elsewhere() {
    let documentation = fs::read_to_string("src/lib.rs").unwrap();
    let documentation = documentation.lines().filter_map(|line| line.strip_prefix("//! "));
    let mut compiled: BTreeSet<String> = documentation.map(|line| line.trim().to_owned()).collect();
    add_lines(Path::new("examples"), &mut compiled);

    let readme = fs::read_to_string("README.md").unwrap();
    let blocks = readme.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        let found = compiled.contains(line);
        assert!(found, "not in the documentation of the crate and not in an example: {line}");
    }
}

fn add_lines(folder: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_lines(&path, lines);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            lines.extend(text.lines().map(|line| line.trim().to_owned()));
        }
    }
}
