//! The table of targets: what is measured, by which command, and what it should be.

use std::fmt;

use super::{
    figures::{self, Figures},
    markdown,
};

/// The names of the recorded figures of one protocol: ratios of requests per second over loopback.
pub(crate) struct Loopback {
    pub(crate) no_replay: &'static str,
    pub(crate) replay: &'static str,
}

pub(crate) const HTTP1: Loopback = Loopback {
    no_replay: "loopback HTTP/1, requests per second: no replay ÷ without the layer",
    replay: "loopback HTTP/1, requests per second: replay ÷ static header under `tower::retry`",
};

pub(crate) const HTTP2: Loopback = Loopback {
    no_replay: "loopback HTTP/2, requests per second: no replay ÷ without the layer",
    replay: "loopback HTTP/2, requests per second: replay ÷ static header under `tower::retry`",
};

/// Recorded by `benches/check_instructions`, which has a copy of this name.
const ADDED_CALLS: &str =
    "heap allocations, locks and system calls added with a fresh token and no replay";

pub(crate) const STORM: &str =
    "storm of 10,000 waiting callers: each ÷ one of a `tokio::sync::watch`";

pub(crate) const CACHE_MEMORY: &str = "100,000 caches: memory of one beside its token";

pub(crate) const IDLE_CPU: &str = "100,000 caches: processor time in 5 s of idleness";

/// In milliseconds. The thread that measures uses about 0.1 ms itself.
const NO_CPU_TIME: Target = Zero { tolerance: 1.0 };

const ROWS: &[Row] = &[
    Row::costs("attach", "oauth_no_replay", "hand_written", Some(AtMost(1.10))),
    Row::costs("attach", "oauth_no_replay", "static_header", None),
    Row::costs("keep", "oauth", "static_header_and_clone", Some(AtMost(0.70))),
    Row::costs("keep", "oauth", "tower_retry", Some(AtMost(0.65))),
    Row::costs("contended", "hand_written", "oauth_no_replay", Some(AtLeast(0.95))),
    Row::ratio("cargo bench --bench end_to_end", HTTP1.no_replay, AtLeast(0.98)),
    Row::ratio("cargo bench --bench end_to_end", HTTP2.no_replay, AtLeast(0.98)),
    Row::ratio("cargo bench --bench end_to_end", HTTP1.replay, AtLeast(1.0)),
    Row::ratio("cargo bench --bench end_to_end", HTTP2.replay, AtLeast(1.0)),
    Row::amount("benches/check_instructions", ADDED_CALLS, "", Zero { tolerance: 0.0 }),
    Row::ratio("cargo bench --bench storm", STORM, AtMost(1.2)),
    Row::amount("cargo bench --bench tenants", CACHE_MEMORY, "bytes", AtMost(1024.0)),
    Row::amount("cargo bench --bench tenants", IDLE_CPU, "ms", NO_CPU_TIME),
];

/// A row of the table.
struct Row {
    command: &'static str,
    measure: Measure,
    target: Option<Target>,
}

enum Measure {
    /// The ratio of two cases of a group. Each counts with its cost above the case `bare`.
    Costs { group: &'static str, case: &'static str, peer: &'static str },
    /// A recorded ratio.
    Ratio(&'static str),
    /// A recorded figure with a unit.
    Amount { figure: &'static str, unit: &'static str },
}

use Measure::{Amount, Costs, Ratio};

enum Target {
    AtMost(f64),
    AtLeast(f64),
    Zero { tolerance: f64 },
}

use Target::{AtLeast, AtMost, Zero};

/// Prints the rows that `command` measures, from the recorded figures.
pub(crate) fn print_rows(command: &str) {
    if figures::is_smoke_test() {
        return;
    }
    let figures = figures::recorded();
    for row in ROWS.iter().filter(|row| row.command == command) {
        let [name, target, measured, result] = row.cells(&figures);
        println!("{name}: {measured}; target: {target}; {result}");
    }
}

/// Returns all rows as a table in Markdown.
pub(crate) fn target_table(figures: &Figures) -> String {
    let rows = ROWS.iter().map(|row| row.cells(figures).to_vec());
    markdown::table(&["", "target", "measured", "result"], rows)
}

/// Returns the cost of each case of a group above its case `bare`, in nanoseconds.
pub(crate) fn costs_above_bare(figures: &Figures, group: &str) -> Vec<(String, f64)> {
    let prefix = format!("{group}/");
    let cost = |case: &str| cost_above_bare(figures, group, case);
    let cases = figures.keys().filter_map(|name| name.strip_prefix(&prefix));
    let others = cases.filter(|case| *case != "bare");
    others.filter_map(|case| Some((case.to_owned(), cost(case)?))).collect()
}

fn cost_above_bare(figures: &Figures, group: &str, case: &str) -> Option<f64> {
    let median = |case| figures.get(&format!("{group}/{case}"));
    Some(median(case)? - median("bare")?)
}

impl Row {
    const fn costs(
        group: &'static str,
        case: &'static str,
        peer: &'static str,
        target: Option<Target>,
    ) -> Self {
        let command = "cargo bench --bench hot_path";
        Self { command, measure: Costs { group, case, peer }, target }
    }

    const fn ratio(command: &'static str, figure: &'static str, target: Target) -> Self {
        Self { command, measure: Ratio(figure), target: Some(target) }
    }

    const fn amount(
        command: &'static str,
        figure: &'static str,
        unit: &'static str,
        target: Target,
    ) -> Self {
        Self { command, measure: Amount { figure, unit }, target: Some(target) }
    }

    /// Returns the name, the target, the measured value and the result.
    fn cells(&self, figures: &Figures) -> [String; 4] {
        let target = self.target.as_ref().map_or("–".to_owned(), |target| match self.measure {
            Amount { unit, .. } => target.with_unit(unit),
            Costs { .. } | Ratio(_) => target.to_string(),
        });
        let (measured, result) = match (self.value(figures), &self.target) {
            (Some((value, shown)), Some(target)) => (shown, target.result(value)),
            (Some((_, shown)), None) => (shown, "no target".to_owned()),
            (None, _) => ("not measured".to_owned(), format!("run `{}`", self.command)),
        };
        [self.name(), target, measured, result]
    }

    fn name(&self) -> String {
        match self.measure {
            Costs { group, case, peer } => format!("`{group}/{case}` ÷ `{group}/{peer}`"),
            Ratio(figure) | Amount { figure, .. } => figure.to_owned(),
        }
    }

    /// Returns the value, as a number and as text.
    fn value(&self, figures: &Figures) -> Option<(f64, String)> {
        match self.measure {
            Costs { group, case, peer } => {
                let case = cost_above_bare(figures, group, case)?;
                let peer = cost_above_bare(figures, group, peer)?;
                let ratio = case / peer;
                Some((ratio, format!("{case:.0} ns ÷ {peer:.0} ns = {ratio:.2}")))
            }
            Ratio(figure) => {
                let ratio = *figures.get(figure)?;
                Some((ratio, format!("{ratio:.3}")))
            }
            Amount { figure, unit } => {
                let value = *figures.get(figure)?;
                let rounded = (value * 10.0).round() / 10.0;
                Some((value, format!("{rounded} {unit}").trim_end().to_owned()))
            }
        }
    }
}

impl Target {
    fn result(&self, value: f64) -> String {
        let (excess, target) = match *self {
            AtMost(target) => (value - target, target),
            AtLeast(target) => (target - value, target),
            Zero { tolerance } => (value - tolerance, 0.0),
        };
        if excess <= 0.0 {
            "met".to_owned()
        } else if target > 0.0 {
            format!("missed by {:.1} %", 100.0 * excess / target)
        } else {
            format!("missed by {value:.1}")
        }
    }

    fn with_unit(&self, unit: &str) -> String {
        match self {
            AtMost(target) => format!("≤ {target} {unit}"),
            AtLeast(target) => format!("≥ {target} {unit}"),
            Zero { .. } => self.to_string(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AtMost(target) => write!(f, "≤ {target:.2}"),
            AtLeast(target) => write!(f, "≥ {target:.2}"),
            Zero { .. } => write!(f, "0"),
        }
    }
}
