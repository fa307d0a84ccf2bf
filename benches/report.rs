//! Prints what the other benches measured, as tables in Markdown, and draws plots of it.
//!
//! ```sh
//! cargo bench                 # measures: takes about 10 minutes
//! benches/check_instructions  # measures the row of heap allocations, locks and system calls
//! cargo bench --bench report  # prints the tables and draws the plots: takes a second
//! ```
//!
//! Tables and plots are written to `target/criterion/report-files`, never to the sources. To put
//! new figures into the chapter on cost, copy the rows by hand:
//!
//! | file | section of `src/docs/cost.md` |
//! | --- | --- |
//! | `targets.md` | "Measured", the first table |
//! | `costs.md` | "Other ways to attach a token" |
//! | `threads.md` | "Many threads" |
//! | `latencies.md` | "While the token is replaced" |
//!
//! `cost_threads.svg` and `cost_refresh.svg` show the last two tables. They are not in the chapter.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use plotters::{coord::Shift, prelude::*};
use support::{
    figures::{self, Figures},
    markdown,
    targets::{costs_above_bare, target_table},
};

fn main() {
    let figures = figures::recorded();
    let folder = figures::criterion_folder().join("report-files");
    fs::create_dir_all(&folder).unwrap();
    let tables = [
        ("targets.md", target_table(&figures)),
        ("costs.md", cost_table(&figures)),
        ("threads.md", thread_table(&figures)),
        ("latencies.md", latency_table(&figures)),
    ];
    for (file, table) in tables {
        println!("{table}");
        write(&folder, file, &table);
    }
    let plots = [
        ("cost_threads.svg", draw_costs(&figures)),
        ("cost_refresh.svg", draw_latencies(&figures)),
    ];
    for (file, plot) in plots {
        match plot {
            Some(svg) => write(&folder, file, &svg),
            None => println!("{file}: not drawn, as some of its cases are not measured"),
        }
    }
}

fn write(folder: &Path, file: &str, text: &str) {
    let path: PathBuf = folder.join(file);
    fs::write(&path, text).unwrap();
    println!("wrote {}", path.display());
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
const THREADS: [u32; 4] = [1, 2, 4, 8];
const QUANTILES: [&str; 4] = ["p50", "p99", "p99.9", "p99.99"];
/// The palette of Okabe and Ito, which readers with a color vision deficiency can distinguish.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
];

/// Returns the costs above `bare` of the groups with one thread, and with as many as cores.
fn cost_table(figures: &Figures) -> String {
    let rows = ["attach", "keep", "contended", "tenants"].into_iter().flat_map(|group| {
        let costs = costs_above_bare(figures, group).into_iter();
        costs.map(move |(case, cost)| vec![format!("`{group}/{case}`"), format!("{cost:.0} ns")])
    });
    markdown::table(&["case", "cost above `bare`"], rows)
}

/// Returns the costs above `bare` of the cases with a shared token, by number of threads.
fn thread_table(figures: &Figures) -> String {
    let cases = figures.keys().filter_map(|name| name.strip_prefix("threads/")?.strip_suffix("/1"));
    let rows = cases.filter(|case| *case != "bare").filter_map(|case| {
        let costs = costs_by_threads(figures, case)?.into_iter();
        let costs = costs.map(|cost| format!("{cost:.0} ns"));
        Some([format!("`{case}`")].into_iter().chain(costs).collect())
    });
    markdown::table(&["threads", "1", "2", "4", "8"], rows)
}

/// Returns the cost of `case` above `bare` for each of the `THREADS`, in nanoseconds.
fn costs_by_threads(figures: &Figures, case: &str) -> Option<Vec<f64>> {
    let cost = |threads: &u32| {
        let cost = figures.get(&format!("threads/{case}/{threads}"))?;
        Some(cost - figures.get(&format!("threads/bare/{threads}"))?)
    };
    THREADS.iter().map(cost).collect()
}

/// Returns `None` if a case of the plot is not measured.
fn draw_costs(figures: &Figures) -> Option<String> {
    const LINES: [(&str, &str); 6] = [
        ("oauth_no_replay", "tower-oauth"),
        ("hand_written", "hand-written"),
        ("static_header", "static header"),
        ("rw_lock", "std RwLock"),
        ("watch", "tokio watch"),
        ("mutex_over_refresh", "tokio Mutex"),
    ];
    let line =
        |(case, label): &(&str, &'static str)| Some((*label, costs_by_threads(figures, case)?));
    let lines: Vec<_> = LINES.iter().map(line).collect::<Option<_>>()?;
    Some(draw_svg((860, 460), |area| draw_threads(area, &lines)))
}

/// In nanoseconds. A higher cost would press the other lines together: the legend shows it as text.
const TOP_OF_SCALE: f64 = 1000.0;

fn draw_threads(area: &Area<'_>, lines: &[(&str, Vec<f64>)]) {
    let shown = lines.iter().flat_map(|(_, costs)| costs).filter(|cost| **cost < TOP_OF_SCALE);
    let highest = shown.fold(0.0, |highest: f64, cost| highest.max(*cost));
    let (plot, legend) = area.split_horizontally(620);
    let mut chart = ChartBuilder::on(&plot)
        .caption("Cost of a request above a service without a token", (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((0.9..9.0_f64).log_scale().base(2.0), 0.0..highest * 1.1)
        .unwrap();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .label_style((FONT, 14))
        .x_desc("threads")
        .y_desc("nanoseconds per request")
        .x_label_formatter(&f64::to_string)
        .y_label_formatter(&f64::to_string)
        .draw()
        .unwrap();
    for (index, (label, costs)) in lines.iter().enumerate() {
        let points = THREADS.iter().map(|threads| f64::from(*threads)).zip(costs.iter().copied());
        let (points, above): (Vec<_>, Vec<_>) = points.partition(|(_, cost)| *cost < TOP_OF_SCALE);
        let style = COLORS[index].stroke_width(2);
        chart.draw_series(LineSeries::new(points.clone(), style)).unwrap();
        let marked = points.into_iter().map(|point| EmptyElement::at(point) + marker(index));
        chart.draw_series(marked).unwrap();
        let at = (16, 70 + 26 * i32::try_from(index).unwrap());
        let sample = [(at.0 - 14, at.1), (at.0 + 14, at.1)];
        legend.draw(&PathElement::new(sample, style)).unwrap();
        legend.draw(&(EmptyElement::at(at) + marker(index))).unwrap();
        legend.draw(&Text::new((*label).to_owned(), (at.0 + 22, at.1 - 7), (FONT, 14))).unwrap();
        if let Some((threads, cost)) = above.first() {
            let text = format!("{:.0} µs with {threads} threads", cost / 1000.0);
            legend.draw(&Text::new(text, (at.0 + 22, at.1 + 11), (FONT, 14))).unwrap();
        }
    }
}

/// Returns `None` if a case of the plot is not measured.
fn draw_latencies(figures: &Figures) -> Option<String> {
    let rows = latencies(figures)?;
    Some(draw_svg((860, 400), |area| draw_quantiles(area, &rows)))
}

/// Returns a label for each case, with its latencies at the `QUANTILES` in nanoseconds.
fn latencies(figures: &Figures) -> Option<Vec<(&'static str, Vec<f64>)>> {
    const ROWS: [(&str, &str); 6] = [
        ("bare", "no token"),
        ("oauth_background_refresh", "tower-oauth, stale"),
        ("oauth_rejected", "tower-oauth, rejected"),
        ("rw_lock", "std RwLock"),
        ("watch", "tokio watch"),
        ("mutex_over_refresh", "tokio Mutex"),
    ];
    let latency =
        |case: &str, quantile: &&str| figures.get(&format!("refresh/{case} {quantile}")).copied();
    let row = |(case, label): &(&str, &'static str)| {
        let latencies = QUANTILES.iter().map(|quantile| latency(case, quantile));
        Some((*label, latencies.collect::<Option<_>>()?))
    };
    ROWS.iter().map(row).collect()
}

fn latency_table(figures: &Figures) -> String {
    let rows = latencies(figures).unwrap_or_default().into_iter().map(|(label, latencies)| {
        let latencies = latencies.iter().map(|latency| format!("{:.2} µs", latency / 1000.0));
        [label.to_owned()].into_iter().chain(latencies).collect()
    });
    markdown::table(&["case", "p50", "p99", "p99.9", "p99.99"], rows)
}

/// Draws a row for each case, from the median to the slowest of ten thousand requests.
fn draw_quantiles(area: &Area<'_>, rows: &[(&str, Vec<f64>)]) {
    let micros = |nanoseconds: f64| nanoseconds / 1000.0;
    let all = rows.iter().flat_map(|(_, latencies)| latencies);
    let highest = all.fold(0.0, |highest: f64, latency| highest.max(*latency));
    let (legend, plot) = area
        .titled("Latency of requests while the token is replaced", (FONT, 18))
        .unwrap()
        .split_vertically(34);
    let mut chart = ChartBuilder::on(&plot)
        .margin(12)
        .margin_left(180)
        .x_label_area_size(44)
        .build_cartesian_2d((0.1..micros(highest) * 1.5).log_scale(), 0.0..rows.len() as f64)
        .unwrap();
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .light_line_style(BLACK.mix(0.05))
        .bold_line_style(BLACK.mix(0.2))
        .label_style((FONT, 14))
        .x_label_formatter(&f64::to_string)
        .x_desc("microseconds per request, logarithmic")
        .draw()
        .unwrap();
    for (index, (label, latencies)) in rows.iter().enumerate() {
        let height = (rows.len() - index) as f64 - 0.5;
        let points = latencies.iter().map(|latency| (micros(*latency), height));
        let points: Vec<_> = points.collect();
        let line = LineSeries::new(points.clone(), BLACK.mix(0.4).stroke_width(2));
        chart.draw_series(line).unwrap();
        let points = points.into_iter().enumerate();
        let markers = points.map(|(quantile, at)| EmptyElement::at(at) + marker(quantile));
        chart.draw_series(markers).unwrap();
        let (left, top) = chart.backend_coord(&(0.1, height));
        area.draw(&Text::new((*label).to_owned(), (left - 12, top), right_centered())).unwrap();
    }
    for (index, label) in QUANTILES.iter().enumerate() {
        let at = (200 + 110 * i32::try_from(index).unwrap(), 20);
        legend.draw(&(EmptyElement::at(at) + marker(index))).unwrap();
        legend.draw(&Text::new((*label).to_owned(), (at.0 + 14, at.1 - 7), (FONT, 14))).unwrap();
    }
}

/// Returns a style that anchors a text in the middle of its right edge.
fn right_centered() -> TextStyle<'static> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    TextStyle::from((FONT, 14)).pos(Pos::new(HPos::Right, VPos::Center))
}

fn draw_svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>)) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE).unwrap();
    draw(&area);
    area.present().unwrap();
    drop(area);
    svg
}

/// Returns a marker. Each index has its own shape and color.
fn marker(index: usize) -> Polygon<(i32, i32)> {
    let shapes: [&[(i32, i32)]; 6] = [
        &[(-2, -5), (2, -5), (5, -2), (5, 2), (2, 5), (-2, 5), (-5, 2), (-5, -2)],
        &[(0, -6), (6, 5), (-6, 5)],
        &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        &[(0, -6), (6, 0), (0, 6), (-6, 0)],
        &[(0, 6), (6, -5), (-6, -5)],
        &[
            (-6, -2),
            (-2, -2),
            (-2, -6),
            (2, -6),
            (2, -2),
            (6, -2),
            (6, 2),
            (2, 2),
            (2, 6),
            (-2, 6),
            (-2, 2),
            (-6, 2),
        ],
    ];
    Polygon::new(shapes[index], COLORS[index].filled())
}
