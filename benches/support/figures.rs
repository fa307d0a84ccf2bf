//! What the benches found, kept as JSON beside what criterion keeps, for `cargo bench --bench report`.

use std::{collections::BTreeMap, fs, path::PathBuf};

pub(crate) type Figures = BTreeMap<String, f64>;

/// Adds to what is known of `name`. A smoke test finds nothing that is worth it.
pub(crate) fn keep(name: &str, figures: Figures) {
    if figures.is_empty() || is_smoke_test() {
        return;
    }
    let mut known = of_file(&home().join(name).with_extension("json"));
    known.extend(figures);
    fs::create_dir_all(home()).unwrap();
    fs::write(home().join(name).with_extension("json"), serde_json::to_vec_pretty(&known).unwrap()).unwrap();
}

/// All that is known, of this run and of those before it.
pub(crate) fn all() -> Figures {
    let files = fs::read_dir(home()).into_iter().flatten().flatten();
    files.flat_map(|file| of_file(&file.path())).collect()
}

/// Nothing is measured then, and little is done.
pub(crate) fn is_smoke_test() -> bool {
    std::env::args().any(|argument| argument == "--test" || argument == "--list")
}

fn of_file(path: &PathBuf) -> Figures {
    let file = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&file).unwrap_or_default()
}

fn home() -> PathBuf {
    let home = std::env::var_os("CRITERION_HOME").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    home.unwrap_or_else(|| target.join("criterion")).join("figures")
}
