//! The rules of the house, checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Who may import whom: only what stands on a lower line. See `src/docs/architecture.md`.
const STRATA: &[&[&str]] = &[
    &["authority", "error", "replay", "sync", "telemetry"],
    &["token"],
    &["source", "token_request"],
    &["cache", "client_auth", "credential"],
    &["presentation", "token_endpoint"],
    &["grant"],
    &["future"],
    &["service"],
    &["layer"],
    &["config"],
];

#[test]
fn each_module_imports_only_from_lower_strata() {
    let stratum = |module: &str| STRATA.iter().position(|stratum| stratum.contains(&module));
    for file in rust_files(Path::new("src")) {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        let own = stratum(&module).unwrap_or_else(|| panic!("{module} has no stratum"));
        for imported in imports(&fs::read_to_string(&file).unwrap()) {
            let other = stratum(&imported).unwrap_or_else(|| panic!("{imported} has no stratum"));
            assert!(
                other < own || imported == module,
                "{} imports {imported}, which does not stand below it",
                file.display()
            );
        }
    }
}

#[test]
fn the_importers_are_seen() {
    let text =
        "use crate::{\n    error::{A, B},\n    token::C,\n};\n// crate::layer\nfn f() { crate::cache::x() }";
    assert_eq!(imports(text), ["error", "token", "cache"].map(str::to_owned).into());
}

/// `src/cache/slot.rs` and `src/cache/mod.rs` are of `cache`, `src/layer.rs` is `layer`.
fn module_of(file: &Path) -> String {
    let first = file.strip_prefix("src").unwrap().iter().next().unwrap();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The modules named behind `crate::` outside of comments and tests.
fn imports(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let modules = code.split("crate::").skip(1).flat_map(leading_modules);
    modules.filter(|module| module.starts_with(char::is_lowercase)).collect()
}

fn leading_modules(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![identifier(rest)] };
    let mut depth = 0;
    let mut modules = vec![identifier(group)];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => modules.push(identifier(&group[at + 1..])),
            _ => {}
        }
    }
    modules
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The examples of the README are those of the crate's documentation, which are compiled.
#[test]
fn the_code_in_the_readme_is_tested_code() {
    let documentation = fs::read_to_string("src/lib.rs").unwrap();
    let tested: BTreeSet<&str> =
        documentation.lines().filter_map(|line| line.strip_prefix("//! ")).map(str::trim).collect();
    let readme = fs::read_to_string("README.md").unwrap();
    let blocks = readme.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines: Vec<&str> =
        blocks.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        assert!(tested.contains(line), "not in the documentation of the crate: {line}");
    }
}

#[test]
fn no_dependency_needs_a_newer_rust_than_the_crate_says() {
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
    let own = rust_version(packages[root]).expect("rust-version is stated");

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
        let normal = dependencies.filter(|dependency| {
            dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
        });
        open.extend(normal.map(|dependency| dependency["pkg"].as_str().unwrap()));
    }
    assert!(seen.len() > 20, "the walk went through {} packages", seen.len());
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn by_id(list: &Value) -> BTreeMap<&str, &Value> {
    list.as_array().unwrap().iter().map(|entry| (entry["id"].as_str().unwrap(), entry)).collect()
}

fn rust_version(package: &Value) -> Option<(u32, u32)> {
    let mut parts = package["rust_version"].as_str()?.split('.').map(|part| part.parse().unwrap());
    Some((parts.next()?, parts.next().unwrap_or(0)))
}
