//! Figures that the benches record as JSON, in a folder beside the data of criterion.
//!
//! `cargo bench --bench report` reads them. A figure stays until its bench is run again.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Values by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Adds `figures` to the file `name`. A smoke test measures nothing, and records nothing.
pub(crate) fn record(name: &str, figures: Figures) {
    if figures.is_empty() || is_smoke_test() {
        return;
    }
    let path = folder().join(name).with_extension("json");
    let mut all = read(&path);
    all.extend(figures);
    fs::create_dir_all(folder()).unwrap();
    fs::write(path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
}

/// Returns all recorded figures, of this run and of earlier ones.
pub(crate) fn recorded() -> Figures {
    let files = fs::read_dir(folder()).into_iter().flatten().flatten();
    files.flat_map(|file| read(&file.path())).collect()
}

/// Returns true if criterion runs each case once, without measuring it.
pub(crate) fn is_smoke_test() -> bool {
    std::env::args().any(|argument| argument == "--test" || argument == "--list")
}

/// Returns the folder in which criterion keeps its data.
pub(crate) fn criterion_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let criterion = std::env::var_os("CRITERION_HOME").map(PathBuf::from);
    criterion.unwrap_or_else(|| Path::new(&target).join("criterion"))
}

fn folder() -> PathBuf {
    criterion_folder().join("figures")
}

fn read(path: &Path) -> Figures {
    let file = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&file).unwrap_or_default()
}
