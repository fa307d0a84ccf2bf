//! Interleaved measurement: a slow phase of the machine affects all cases of a group.

use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, SamplingMode, measurement::WallTime};

use super::figures::{self, Figures};

/// A case to measure.
pub(crate) struct Case<'a> {
    id: BenchmarkId,
    name: String,
    run: Box<dyn FnMut() -> f64 + 'a>,
    /// Nanoseconds per iteration, one value per round.
    samples: Vec<f64>,
}

impl<'a> Case<'a> {
    /// `run` runs the case for one round and returns the nanoseconds per iteration.
    pub(crate) fn new(name: &str, run: impl FnMut() -> f64 + 'a) -> Self {
        let id = match name.split_once('/') {
            Some((function, parameter)) => BenchmarkId::new(function, parameter),
            None => BenchmarkId::from_parameter(name),
        };
        Self { id, name: name.to_owned(), run: Box::new(run), samples: Vec::new() }
    }

    fn take_sample(&mut self) {
        let nanoseconds = (self.run)();
        self.samples.push(nanoseconds);
    }
}

/// Measures `cases` with criterion, and records their medians.
///
/// Criterion measures one case after the other. Whenever it asks for a sample of one case, a round
/// of all cases is run, in alternating order. Criterion gets the samples of its own case. The
/// medians and ratios are taken over all rounds.
pub(crate) fn measure_interleaved(
    mut group: BenchmarkGroup<'_, WallTime>,
    name: &str,
    iterations_per_round: u64,
    mut cases: Vec<Case<'_>>,
) -> Samples {
    group.sampling_mode(SamplingMode::Flat);
    let ids: Vec<_> = cases.iter().map(|case| case.id.clone()).collect();
    for (index, id) in ids.into_iter().enumerate() {
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = iterations.div_ceil(iterations_per_round);
                let nanoseconds: f64 = (0..rounds).map(|_| run_round(&mut cases, index)).sum();
                let mean = nanoseconds / rounds as f64;
                Duration::from_secs_f64(mean * iterations as f64 / 1e9)
            });
        });
    }
    group.finish();
    let with_group = |case: Case<'_>| (format!("{name}/{}", case.name), case.samples);
    let samples = Samples(cases.into_iter().map(with_group).collect());
    figures::record(name, samples.medians());
    samples
}

/// Runs each case once, and returns the sample of the case at `index`.
fn run_round(cases: &mut [Case<'_>], index: usize) -> f64 {
    if cases[0].samples.len().is_multiple_of(2) {
        cases.iter_mut().for_each(Case::take_sample);
    } else {
        cases.iter_mut().rev().for_each(Case::take_sample);
    }
    *cases[index].samples.last().unwrap()
}

/// The samples of each case, in nanoseconds per iteration. All cases have the same number.
pub(crate) struct Samples(Vec<(String, Vec<f64>)>);

impl Samples {
    /// Returns no figures if the filter of criterion excludes the whole group.
    fn medians(&self) -> Figures {
        let measured = self.0.iter().filter(|(_, samples)| !samples.is_empty());
        measured.map(|(case, samples)| (case.clone(), median(samples.clone()))).collect()
    }

    /// Returns the median of the ratios `case` ÷ `peer`, each of two samples of the same round.
    pub(crate) fn paired_ratio(&self, case: &str, peer: &str) -> Option<f64> {
        let samples = |id: &str| self.0.iter().find(|(name, _)| name == id).map(|(_, all)| all);
        let pairs = samples(case)?.iter().zip(samples(peer)?);
        let ratios: Vec<_> = pairs.map(|(case, peer)| case / peer).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
