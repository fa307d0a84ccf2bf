//! Cases measured by turns, so that what slows the machine for a while slows all of them.

use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, SamplingMode, measurement::WallTime};

use super::figures::{self, Figures};

/// Something to measure, under the id that criterion knows it by.
pub(crate) struct Case<'a> {
    id: BenchmarkId,
    name: String,
    turn: Box<dyn FnMut() -> f64 + 'a>,
    taken: Vec<f64>,
}

impl<'a> Case<'a> {
    /// `turn` takes a turn and says how many nanoseconds each iteration took.
    pub(crate) fn new(name: &str, turn: impl FnMut() -> f64 + 'a) -> Self {
        let id = match name.split_once('/') {
            Some((function, parameter)) => BenchmarkId::new(function, parameter),
            None => BenchmarkId::from_parameter(name),
        };
        Self { id, name: name.to_owned(), turn: Box::new(turn), taken: Vec::new() }
    }

    fn take_turn(&mut self) {
        let nanoseconds = (self.turn)();
        self.taken.push(nanoseconds);
    }
}

/// Lets criterion measure each case, a turn of `iterations_of_a_turn` at a time. Whichever is measured, all take a turn, in
/// this order and then in the opposite one, and each turn counts: the medians are of turns that were next to each other. They
/// are kept beside what criterion keeps.
pub(crate) fn by_turns(
    mut group: BenchmarkGroup<'_, WallTime>,
    name: &str,
    iterations_of_a_turn: u64,
    mut cases: Vec<Case<'_>>,
) -> Turns {
    group.sampling_mode(SamplingMode::Flat);
    let ids: Vec<_> = cases.iter().map(|case| case.id.clone()).collect();
    for (measured, id) in ids.into_iter().enumerate() {
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let turns = iterations.div_ceil(iterations_of_a_turn);
                let nanoseconds: f64 = (0..turns).map(|_| turn_of_all(&mut cases, measured)).sum();
                Duration::from_secs_f64(nanoseconds / turns as f64 * iterations as f64 / 1e9)
            });
        });
    }
    group.finish();
    let taken = cases.into_iter().map(|case| (format!("{name}/{}", case.name), case.taken)).collect();
    let turns = Turns(taken);
    figures::keep(name, turns.medians());
    turns
}

/// How long an iteration of the measured one took.
fn turn_of_all(cases: &mut [Case<'_>], measured: usize) -> f64 {
    if cases[0].taken.len().is_multiple_of(2) {
        cases.iter_mut().for_each(Case::take_turn);
    } else {
        cases.iter_mut().rev().for_each(Case::take_turn);
    }
    cases[measured].taken[cases[measured].taken.len() - 1]
}

/// What each turn took, as nanoseconds for an iteration, by case. All took as many.
pub(crate) struct Turns(Vec<(String, Vec<f64>)>);

impl Turns {
    /// None where criterion was told to leave them all out.
    fn medians(&self) -> Figures {
        let measured = self.0.iter().filter(|(_, taken)| !taken.is_empty());
        measured.map(|(case, taken)| (case.clone(), median(taken.clone()))).collect()
    }

    /// The median of what `case` took in parts of what `peer` took in the same turn.
    pub(crate) fn paired(&self, case: &str, peer: &str) -> Option<f64> {
        let taken = |id: &str| self.0.iter().find(|(name, _)| name == id).map(|(_, taken)| taken);
        let pairs = taken(case)?.iter().zip(taken(peer)?);
        let ratios: Vec<_> = pairs.map(|(case, peer)| case / peer).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
