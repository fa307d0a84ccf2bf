//! What the benches have to show, with its targets.

use super::figures::{self, Figures};

/// A line of the table.
pub(crate) struct Row {
    bench: &'static str,
    measure: Measure,
    target: Option<Target>,
}

enum Measure {
    /// What two cases of a group cost more than its `bare`, the one in parts of the other.
    AboveBare { group: &'static str, case: &'static str, peer: &'static str },
    /// A figure that a bench has kept, and its unit.
    Kept(&'static str, &'static str),
}

use Measure::{AboveBare, Kept};

enum Target {
    AtMost(f64),
    AtLeast(f64),
}

use Target::{AtLeast, AtMost};

/// In milliseconds, the least that most systems count.
const CLOCK_TICK: f64 = 10.0;

const ROWS: &[Row] = &[
    above_bare("attach", "oauth_never", "static_header", Some(AtMost(1.05))),
    above_bare("attach", "oauth_by_the_clock", "static_header", None),
    above_bare("attach", "oauth_never", "rw_lock", None),
    above_bare("attach", "oauth_never", "mutex_over_refresh", None),
    above_bare("attach", "oauth_never", "watch", None),
    above_bare("attach", "oauth_never", "format", None),
    above_bare("keep", "oauth", "static_header_and_clone", Some(AtMost(1.05))),
    above_bare("keep", "oauth", "tower_retry", Some(AtMost(0.6))),
    above_bare("contended", "static_header", "oauth_never", Some(AtLeast(1.5))),
    above_bare("contended", "static_header_clone_per_request", "oauth_clone_per_request", Some(AtLeast(1.0))),
    above_bare("contended", "oauth_never", "rw_lock", None),
    above_bare("contended", "oauth_never", "mutex_over_refresh", None),
    above_bare("contended", "oauth_never", "watch", None),
    kept("end_to_end", "end_to_end/http1, requests per second with the layer ÷ without", "", AtLeast(0.98)),
    kept("end_to_end", "end_to_end/http2, requests per second with the layer ÷ without", "", AtLeast(0.98)),
    kept("storm", "storm/oauth ÷ storm/watch, for each waiter", "", AtMost(1.2)),
    kept("tenants", "tenants, memory of a cache beside its token", "bytes", AtMost(1024.0)),
    kept("tenants", "tenants, processor time of idle caches in 5 s", "ms", AtMost(CLOCK_TICK)),
];

const fn above_bare(
    group: &'static str,
    case: &'static str,
    peer: &'static str,
    target: Option<Target>,
) -> Row {
    Row { bench: "hot_path", measure: AboveBare { group, case, peer }, target }
}

const fn kept(bench: &'static str, figure: &'static str, unit: &'static str, target: Target) -> Row {
    Row { bench, measure: Kept(figure, unit), target: Some(target) }
}

/// The lines of one bench, from this run, or from the last one for what was left out.
pub(crate) fn print_ratios(bench: &str) {
    if figures::is_smoke_test() {
        return;
    }
    let figures = figures::all();
    for row in ROWS.iter().filter(|row| row.bench == bench) {
        println!("{}: {}", row.name(), row.measured(&figures));
    }
}

/// The lines of all benches, in Markdown.
pub(crate) fn table(figures: &Figures) -> String {
    let rows = ROWS.iter().map(|row| {
        let target = row.target.as_ref().map(Target::to_string).unwrap_or_default();
        let shown = row.value(figures).map_or("not measured".to_owned(), |(_, shown)| shown);
        format!("| {} | {target} | {shown} |\n", row.name())
    });
    ["| | target | measured |\n| --- | --- | --- |\n".to_owned()].into_iter().chain(rows).collect()
}

impl Row {
    fn name(&self) -> String {
        match self.measure {
            AboveBare { group, case, peer } => format!("{group}/{case} ÷ {group}/{peer}"),
            Kept(figure, _) => figure.to_owned(),
        }
    }

    fn measured(&self, figures: &Figures) -> String {
        let Some((value, shown)) = self.value(figures) else { return "not measured".to_owned() };
        match &self.target {
            Some(target) => format!("{shown} (target {target}: {})", target.verdict(value)),
            None => shown,
        }
    }

    fn value(&self, figures: &Figures) -> Option<(f64, String)> {
        match self.measure {
            AboveBare { group, case, peer } => {
                let bare = figures.get(&format!("{group}/bare"))?;
                let case = figures.get(&format!("{group}/{case}"))? - bare;
                let peer = figures.get(&format!("{group}/{peer}"))? - bare;
                let ratio = case / peer;
                Some((ratio, format!("{case:.0} ns ÷ {peer:.0} ns = {ratio:.2}")))
            }
            Kept(figure, unit) => {
                let value = *figures.get(figure)?;
                let shown =
                    if unit.is_empty() { format!("{value:.3}") } else { format!("{value:.1} {unit}") };
                Some((value, shown))
            }
        }
    }
}

impl Target {
    fn verdict(&self, value: f64) -> String {
        let missed_by = match self {
            AtMost(target) => value - target,
            AtLeast(target) => target - value,
        };
        match self {
            _ if missed_by <= 0.0 => "met".to_owned(),
            AtMost(target) | AtLeast(target) => format!("missed by {:.1} %", 100.0 * missed_by / target),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AtMost(target) => write!(f, "≤ {target}"),
            AtLeast(target) => write!(f, "≥ {target}"),
        }
    }
}
