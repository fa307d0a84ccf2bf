//! The workflow for a public repository runs the same parts as `.ci/run`.

use std::{collections::BTreeSet, fs};

#[test]
fn workflow_runs_every_part_of_ci_run() {
    let script = fs::read_to_string(".ci/run").unwrap();
    let list = script.split_once("\nparts=(").unwrap().1.split_once(')').unwrap().0;
    let parts: BTreeSet<_> = list.split_whitespace().collect();
    assert!(parts.len() > 10, "{parts:?}");

    let workflow = fs::read_to_string(".github/workflows/ci.yml").unwrap();
    let matrix = workflow.split_once("        part:\n").unwrap().1.lines();
    let mut run: BTreeSet<_> = matrix.map_while(|line| line.strip_prefix("          - ")).collect();
    run.extend(workflow.lines().filter_map(|line| line.trim().strip_prefix("- run: .ci/run ")));
    run.remove("${{ matrix.part }}");
    assert_eq!(run, parts);

    for part in parts {
        assert!(script.contains(&format!("\npart_{part}() {{\n")), "{part} is not defined");
    }
}
