//! Runs the fuzz targets with the seeds, and with a fixed number of mutations of them. This needs
//! no fuzzer. `tests/fuzz/run` runs the same targets with `cargo fuzz`.

#![allow(
    clippy::unwrap_used,
    clippy::panic, // a panic is how a test fails
    unreachable_pub, // the library of `cargo fuzz` re-exports the targets
)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use proptest::{
    collection::vec,
    prelude::{Strategy, any},
    prop_oneof,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
};
use reqwest::Url;

mod targets;

use targets::{TARGETS, Target};

#[test]
fn mutated_token_response_breaks_no_rule() {
    run("token_response");
}

#[test]
fn mutated_metadata_breaks_no_rule() {
    run("metadata");
}

#[test]
fn mutated_challenge_breaks_no_rule() {
    run("challenge");
}

#[test]
fn mutated_configuration_breaks_no_rule() {
    run("configuration");
}

#[test]
fn mutated_origin_breaks_no_rule() {
    run("origin");
}

#[test]
fn every_target_has_seeds_and_a_binary() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let entries = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(path(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(entries("seeds"), names);
    assert_eq!(entries("fuzz_targets"), names);
    let manifest: toml::Table = fs::read_to_string(path("Cargo.toml")).unwrap().parse().unwrap();
    let binaries = manifest["bin"].as_array().unwrap().iter();
    let binaries = binaries.map(|binary| binary["name"].as_str().unwrap().to_owned());
    assert_eq!(binaries.collect::<BTreeSet<_>>(), names);
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz")).join(name)
}

/// The number of mutations for each target.
const CASES: u32 = 2_000;

fn run(name: &str) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
    let seeds = read_seeds(name);
    for seed in &seeds {
        target(seed);
    }
    run_mutated(target, &seeds);
}

fn read_seeds(name: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(path("seeds").join(name)).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    // The order of the file system would change the inputs.
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// The seed of the random numbers is fixed, so that a test run is reproducible.
fn run_mutated(target: Target, seeds: &[Vec<u8>]) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..Config::default()
    };
    let inputs = (any::<Index>(), vec(mutation(), 1..6));
    let checked = TestRunner::new(config).run(&inputs, |(seed, mutations)| {
        let mut input = seed.get(seeds).clone();
        for mutation in mutations {
            mutation.apply(&mut input, seeds);
        }
        target(&input);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

/// A change of an input. A position is between 0 and the length of the input.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    Insert {
        at: Index,
        byte: u8,
    },
    Replace {
        at: Index,
        byte: u8,
    },
    Remove {
        at: Index,
        length: usize,
    },
    Repeat {
        at: Index,
        length: usize,
    },
    /// Inserts a part of a seed.
    Splice {
        at: Index,
        seed: Index,
        from: Index,
        length: usize,
    },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    // Most bytes of the seeds are ASCII.
    let byte = || prop_oneof![3 => 0_u8..128, 1 => any::<u8>()];
    prop_oneof![
        (at(), byte()).prop_map(|(at, byte)| Mutation::Insert { at, byte }),
        (at(), byte()).prop_map(|(at, byte)| Mutation::Replace { at, byte }),
        (at(), 1_usize..32).prop_map(|(at, length)| Mutation::Remove { at, length }),
        (at(), 1_usize..32).prop_map(|(at, length)| Mutation::Repeat { at, length }),
        (at(), at(), at(), 1_usize..64).prop_map(|(at, seed, from, length)| Mutation::Splice {
            at,
            seed,
            from,
            length
        }),
    ]
}

impl Mutation {
    fn apply(self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let part = |bytes: &[u8], at: Index, length: usize| {
            let start = at.index(bytes.len() + 1);
            start..bytes.len().min(start + length)
        };
        match self {
            Self::Insert { at, byte } => input.insert(at.index(input.len() + 1), byte),
            Self::Replace { at, byte } => {
                let replaced = part(input, at, 1);
                input.splice(replaced, [byte]);
            }
            Self::Remove { at, length } => drop(input.drain(part(input, at, length))),
            Self::Repeat { at, length } => {
                let repeated = part(input, at, length);
                let copy = input[repeated.clone()].to_vec();
                input.splice(repeated.end..repeated.end, copy);
            }
            Self::Splice { at, seed, from, length } => {
                let seed = seed.get(seeds);
                let at = at.index(input.len() + 1);
                input.splice(at..at, seed[part(seed, from, length)].iter().copied());
            }
        }
    }
}
