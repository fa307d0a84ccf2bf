//! The dependencies between the source files: no cycles, and only from higher to lower strata.

mod import_graph;

use std::{collections::BTreeSet, fs, path::Path};

use import_graph::{ImportGraph, Sources};

/// The top-level modules from low to high. A module imports only from lower strata, see
/// `src/docs/architecture.md`.
const STRATA: &[&[&str]] = &[
    &["doubling_delay", "log_text", "pace"],
    &["redact", "url_check"],
    &["error"],
    &["replay", "sync", "telemetry"],
    &["token"],
    &["token_endpoint"],
    &["source"],
    &["cache", "host_header", "origins"],
    &["attach"],
    &["rejection"],
    &["future"],
    &["service"],
    &["layer"],
    &["config", "reqwest", "test_util"],
];

#[test]
fn source_files_have_no_import_cycles() {
    let cycles = Vec::from_iter(ImportGraph::new(&crate_sources()).cycles());
    assert!(cycles.is_empty(), "import cycles:\n{}", cycles.join("\n"));
}

#[test]
fn modules_import_only_from_lower_strata() {
    let graph = ImportGraph::new(&crate_sources());
    let stratum = |file: &str| {
        let module = top_level_module(file);
        let stratum = STRATA.iter().position(|stratum| stratum.contains(&module));
        stratum.unwrap_or_else(|| panic!("the module {module} has no stratum"))
    };
    let mut edges = 0;
    for (file, imports) in graph.imports.iter().filter(|(file, _)| *file != "lib.rs") {
        for imported in imports {
            assert!(
                top_level_module(file) == top_level_module(imported)
                    || stratum(imported) < stratum(file),
                "{file} imports {imported}, which is not in a lower stratum"
            );
            edges += 1;
        }
    }
    assert!(edges > 50, "only {edges} imports were found");
}

#[test]
fn strata_name_exactly_the_top_level_modules() {
    let sources = crate_sources();
    let modules = sources.keys().map(|file| top_level_module(file));
    let modules: BTreeSet<_> = modules.filter(|module| *module != "lib").collect();
    assert_eq!(STRATA.concat().into_iter().collect::<BTreeSet<_>>(), modules);
}

/// A file outside of the module tree would not be checked.
#[test]
fn every_source_file_is_in_the_module_tree() {
    let sources = crate_sources();
    let graph = ImportGraph::new(&sources);
    let mut reached: BTreeSet<_> = graph.imports.keys().collect();
    reached.extend(&graph.test_files);
    assert_eq!(reached, sources.keys().collect());
}

#[test]
fn cycle_of_two_files_is_found() {
    let graph = graph_of([
        ("lib.rs", "mod b; mod a;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B(super::a::A);"),
    ]);
    assert_eq!(graph.cycles(), ["a.rs -> b.rs -> a.rs".to_owned()].into());
}

#[test]
fn cycle_of_three_files_is_found() {
    let graph = graph_of([
        ("lib.rs", "mod cache; mod layer; pub use layer::Layer;"),
        ("cache/mod.rs", "mod slot; mod state; pub(crate) use slot::Slot; pub use state::State;"),
        ("cache/slot.rs", "use super::state::State; pub(crate) struct Slot(State);"),
        ("cache/state.rs", "pub struct State(crate::Layer);"),
        ("layer.rs", "use crate::cache::Slot; pub struct Layer { slot: Slot }"),
    ]);
    let cycle = "cache/slot.rs -> cache/state.rs -> layer.rs -> cache/slot.rs";
    assert_eq!(graph.cycles(), [cycle.to_owned()].into());
}

#[test]
fn re_exports_are_followed_to_the_definition() {
    let graph = graph_of([
        ("lib.rs", "mod token; mod user; pub use token::AccessToken;"),
        (
            "token/mod.rs",
            "mod access_token; pub use self::access_token::{AccessToken, new as make};",
        ),
        ("token/access_token.rs", "pub struct AccessToken; pub fn new() {}"),
        ("user/mod.rs", "mod direct; mod function; mod glob; mod module; mod root;"),
        ("user/direct.rs", "use crate::token::AccessToken;"),
        ("user/function.rs", "fn f() { crate::token::make() }"),
        ("user/glob.rs", "use crate::token::*; fn f(_: AccessToken) {}"),
        ("user/module.rs", "use crate::token as t; fn f() -> t::AccessToken { t::AccessToken }"),
        ("user/root.rs", "fn f() { let _: Option<crate::AccessToken> = None; }"),
    ]);
    for user in ["direct", "function", "glob", "module", "root"] {
        let imports = imports_of(&graph, &format!("user/{user}.rs"));
        assert_eq!(imports, ["token/access_token.rs"], "{user}");
    }
    for root in ["lib.rs", "token/mod.rs", "user/mod.rs"] {
        assert!(imports_of(&graph, root).is_empty(), "a re-export of {root} is an edge");
    }
}

#[test]
fn function_with_the_name_of_its_module_is_resolved() {
    let graph = graph_of([
        ("lib.rs", "mod sync; mod user;"),
        ("sync/mod.rs", "mod lock; pub(crate) use lock::lock;"),
        ("sync/lock.rs", "pub(crate) fn lock() {}"),
        ("user.rs", "use crate::sync::lock; fn f() { lock() }"),
    ]);
    assert_eq!(imports_of(&graph, "user.rs"), ["sync/lock.rs"]);
}

#[test]
fn paths_in_macro_calls_and_function_bodies_are_found() {
    let graph = graph_of([
        ("lib.rs", "mod a; mod b; mod user; mod inline { pub mod c { use crate::b::B; } }"),
        ("a.rs", "pub enum A { One } pub const N: u8 = 1;"),
        ("b.rs", "pub struct B;"),
        ("user.rs", "fn f() { use crate::a as other; println!(\"crate::b::B {}\", (other::N)); }"),
    ]);
    assert_eq!(imports_of(&graph, "user.rs"), ["a.rs"], "a string literal is not a path");
    assert_eq!(imports_of(&graph, "lib.rs"), ["b.rs"], "inline modules belong to their file");
}

#[test]
fn test_code_and_comments_add_no_imports() {
    let graph = graph_of([
        ("lib.rs", "mod a; mod b; #[cfg(all(test, loom))] mod model;"),
        (
            "a.rs",
            "//! crate::b::B\npub struct A;\n\
             #[cfg(test)] use crate::b::B;\n\
             impl A { #[cfg(test)] fn f() { crate::b::f() } }\n\
             #[cfg(test)] mod tests { use crate::b::*; }\n",
        ),
        ("b.rs", "use crate::a::A; pub fn f() {} #[cfg(not(test))] pub struct B(A);"),
        ("model.rs", "use crate::b::B;"),
    ]);
    assert!(imports_of(&graph, "a.rs").is_empty());
    assert_eq!(imports_of(&graph, "b.rs"), ["a.rs"]);
    assert_eq!(graph.test_files, ["model.rs".to_owned()].into());
}

fn graph_of<const N: usize>(files: [(&str, &str); N]) -> ImportGraph {
    ImportGraph::new(&files.map(|(file, text)| (file.to_owned(), text.to_owned())).into())
}

fn imports_of<'a>(graph: &'a ImportGraph, file: &str) -> Vec<&'a str> {
    graph.imports[file].iter().map(String::as_str).collect()
}

/// Returns `cache` for `cache/slot.rs` and `cache/mod.rs`, and `layer` for `layer.rs`.
fn top_level_module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn crate_sources() -> Sources {
    let mut sources = Sources::new();
    add_rust_files(Path::new("src"), &mut sources);
    sources
}

fn add_rust_files(folder: &Path, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_rust_files(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix("src").unwrap().to_str().unwrap().replace('\\', "/");
            sources.insert(path, text);
        }
    }
}
