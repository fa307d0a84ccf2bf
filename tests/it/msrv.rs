//! The minimum supported Rust version of the crate and of its dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

#[test]
fn no_dependency_needs_a_newer_rust_than_the_crate() {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--all-features",
        "--locked",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = metadata["resolve"]["root"].as_str().unwrap();
    let own = rust_version(packages[root]).expect("Cargo.toml has a rust-version");

    let mut seen = BTreeSet::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        if let Some(needed) = rust_version(packages[id]) {
            assert!(needed <= own, "{id} needs Rust {needed:?}, the crate promises {own:?}");
        }
        let dependencies = nodes[id]["deps"].as_array().unwrap().iter();
        // Dependencies for builds and tests have a kind.
        let normal = dependencies.filter(|dependency| {
            dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
        });
        open.extend(normal.map(|dependency| dependency["pkg"].as_str().unwrap()));
    }
    assert!(seen.len() > 20, "only {} packages were checked", seen.len());
}

/// Returns the output of cargo with these arguments.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn by_id(list: &Value) -> BTreeMap<&str, &Value> {
    list.as_array().unwrap().iter().map(|entry| (entry["id"].as_str().unwrap(), entry)).collect()
}

/// Returns the major and minor part of `rust-version`.
fn rust_version(package: &Value) -> Option<(u32, u32)> {
    let mut parts = package["rust_version"].as_str()?.split('.').map(|part| part.parse().unwrap());
    Some((parts.next()?, parts.next().unwrap_or(0)))
}
