//! The tables of the cargo features, compared with `Cargo.toml` and with the dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::chapter_table::ChapterTable;

const TABLE: &str = include_str!("../../src/docs/features.md");
const NO_FEATURE: &str = "(none)";

/// Returns the features of `Cargo.toml`, and the default ones.
fn features() -> (BTreeSet<String>, BTreeSet<String>) {
    let manifest: toml::Table = fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    let names = features.keys().filter(|name| *name != "default").cloned().collect();
    let defaults = features["default"].as_array().unwrap().iter();
    (names, defaults.map(|name| name.as_str().unwrap().to_owned()).collect())
}

#[test]
fn tables_have_exactly_the_features_of_the_manifest() {
    let (names, defaults) = features();
    let readme = fs::read_to_string("README.md").unwrap();
    for (text, yes, no) in [(TABLE, "yes", "no"), (readme.as_str(), "on", "off")] {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        // Other tables of the README have another second column.
        let rows = rows.filter_map(|(name, rest)| Some((name, rest.split_once(" | ")?.0)));
        let rows: BTreeMap<_, _> =
            rows.filter(|(_, default)| *default == yes || *default == no).collect();
        let listed: BTreeSet<_> = rows.keys().map(|name| (*name).to_owned()).collect();
        assert_eq!(listed, names);
        let listed = rows.iter().filter(|(_, default)| **default == yes);
        assert_eq!(listed.map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), defaults);
    }
}

/// The crates of a build depend on the platform, and this is the one of the table.
#[cfg(target_os = "linux")]
#[test]
fn table_has_the_number_of_crates_of_each_feature() {
    let crates = |feature: &str| {
        let tree = crate::msrv::cargo(&[
            "tree",
            "--locked",
            "--offline",
            "--edges=normal",
            "--prefix=none",
            "--format={p}",
            "--no-default-features",
            &format!("--features={feature}"),
        ]);
        let crates: BTreeSet<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
        crates.len() - 1
    };
    let table = ChapterTable::<6>::read(TABLE);
    let slim = crates("");
    assert_eq!(table.row(NO_FEATURE)[4], slim.to_string());
    assert!(slim <= 20, "the slim crate has {slim} dependencies");
    let counted = features().0.into_iter().map(|name| {
        let added = crates(&name) - slim;
        (name, format!("+{added}"))
    });
    let counted: BTreeMap<_, _> = counted.collect();
    let listed = counted.keys().map(|name| (name.clone(), table.row(&format!("`{name}`"))[4]));
    let listed: BTreeMap<_, _> = listed.map(|(name, count)| (name, count.to_owned())).collect();
    assert_eq!(listed, counted);
}
