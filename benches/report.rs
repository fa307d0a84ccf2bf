//! What the other benches have found: the tables, in Markdown, and the plots of `src/docs`.
//!
//! `cargo bench && cargo bench --bench report`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::fs;

use plotters::{coord::Shift, prelude::*};
use support::{
    figures::{self, Figures},
    ratios::table,
};

fn main() {
    let figures = figures::all();
    println!("{}\n{}", table(&figures), table_of_latencies(&figures));
    for (plot, draw) in [("cost_threads", cost_threads as Draw), ("cost_refresh", cost_refresh)] {
        let path = format!("src/docs/{plot}.svg");
        match draw(&figures) {
            Some(_) if figures::is_smoke_test() => println!("{path}: can be drawn"),
            Some(svg) => fs::write(path, svg).unwrap(),
            None => println!("{path}: not everything in it is measured"),
        }
    }
}

/// None where a figure is missing.
type Draw = fn(&Figures) -> Option<String>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
const THREADS: [u32; 4] = [1, 2, 4, 8];
const QUANTILES: [&str; 4] = ["p50", "p99", "p99.9", "p99.99"];
/// Told apart by those who do not see all colors, too (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
];

fn cost_threads(figures: &Figures) -> Option<String> {
    const LINES: [(&str, &str); 6] = [
        ("oauth_never", "tower-oauth"),
        ("oauth_clone_per_request", "tower-oauth, cloned each time"),
        ("static_header", "static header"),
        ("rw_lock", "std RwLock"),
        ("watch", "tokio watch"),
        ("mutex_over_refresh", "tokio Mutex"),
    ];
    let above_bare = |case: &str, threads| {
        let cost = figures.get(&format!("threads/{case}/{threads}"))?;
        Some(cost - figures.get(&format!("threads/bare/{threads}"))?)
    };
    let costs = |case| THREADS.iter().map(|threads| above_bare(case, threads)).collect::<Option<Vec<f64>>>();
    let lines: Vec<_> =
        LINES.iter().map(|(case, label)| Some((*label, costs(case)?))).collect::<Option<_>>()?;
    Some(drawn((860, 460), |area| draw_threads(area, &lines)))
}

/// In nanoseconds. What costs more would make one line of all others; the legend says so.
const OFF_THE_SCALE: f64 = 1000.0;

fn draw_threads(area: &Area<'_>, lines: &[(&str, Vec<f64>)]) {
    let shown = lines.iter().flat_map(|(_, costs)| costs).filter(|cost| **cost < OFF_THE_SCALE);
    let most = shown.fold(0.0, |most: f64, cost| most.max(*cost));
    let (plot, legend) = area.split_horizontally(620);
    let mut chart = ChartBuilder::on(&plot)
        .caption("What a request costs, above a service without a token", (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((0.9..9.0_f64).log_scale().base(2.0), 0.0..most * 1.1)
        .unwrap();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .label_style((FONT, 14))
        .x_desc("threads")
        .y_desc("nanoseconds for each request")
        .x_label_formatter(&f64::to_string)
        .y_label_formatter(&f64::to_string)
        .draw()
        .unwrap();
    for (line, (label, costs)) in lines.iter().enumerate() {
        let points = THREADS.iter().map(|threads| f64::from(*threads)).zip(costs.iter().copied());
        let (points, beyond): (Vec<_>, Vec<_>) = points.partition(|(_, cost)| *cost < OFF_THE_SCALE);
        chart.draw_series(LineSeries::new(points.clone(), COLORS[line].stroke_width(2))).unwrap();
        chart.draw_series(points.into_iter().map(|point| EmptyElement::at(point) + marker(line))).unwrap();
        let at = (16, 70 + 26 * i32::try_from(line).unwrap());
        legend
            .draw(&PathElement::new([(at.0 - 14, at.1), (at.0 + 14, at.1)], COLORS[line].stroke_width(2)))
            .unwrap();
        legend.draw(&(EmptyElement::at(at) + marker(line))).unwrap();
        legend.draw(&Text::new((*label).to_owned(), (at.0 + 22, at.1 - 7), (FONT, 14))).unwrap();
        if let Some((threads, cost)) = beyond.first() {
            let off = format!("with {threads} threads {:.0} µs", cost / 1000.0);
            legend.draw(&Text::new(off, (at.0 + 22, at.1 + 11), (FONT, 14))).unwrap();
        }
    }
}

fn cost_refresh(figures: &Figures) -> Option<String> {
    let rows = latencies(figures)?;
    Some(drawn((860, 400), |area| draw_refresh(area, &rows)))
}

/// In nanoseconds, for each of the `QUANTILES`.
fn latencies(figures: &Figures) -> Option<Vec<(&'static str, Vec<f64>)>> {
    const ROWS: [(&str, &str); 6] = [
        ("bare", "no token"),
        ("oauth_renewal", "tower-oauth, renewed"),
        ("oauth_invalidate", "tower-oauth, refused"),
        ("rw_lock", "std RwLock"),
        ("watch", "tokio watch"),
        ("mutex_over_refresh", "tokio Mutex"),
    ];
    let latency = |case: &str, quantile: &&str| figures.get(&format!("refresh/{case} {quantile}")).copied();
    let of_case = |case| QUANTILES.iter().map(|quantile| latency(case, quantile)).collect::<Option<_>>();
    ROWS.iter().map(|(case, label)| Some((*label, of_case(case)?))).collect()
}

fn table_of_latencies(figures: &Figures) -> String {
    let head = format!(
        "| while the token is replaced | {} |\n| --- | --- | --- | --- | --- |\n",
        QUANTILES.join(" | ")
    );
    let rows = latencies(figures).unwrap_or_default().into_iter().map(|(label, latencies)| {
        let latencies = latencies.iter().map(|latency| format!("{:.2} µs", latency / 1000.0));
        format!("| {label} | {} |\n", latencies.collect::<Vec<_>>().join(" | "))
    });
    [head].into_iter().chain(rows).collect()
}

/// Each row is a case: from its median to the slowest of ten thousand requests.
fn draw_refresh(area: &Area<'_>, rows: &[(&str, Vec<f64>)]) {
    let micros = |nanoseconds: f64| nanoseconds / 1000.0;
    let most =
        rows.iter().flat_map(|(_, latencies)| latencies).fold(0.0, |most: f64, latency| most.max(*latency));
    let (legend, plot) = area
        .titled("Latency of requests while the token is replaced", (FONT, 18))
        .unwrap()
        .split_vertically(34);
    let rows_from_below = 0.0..rows.len() as f64;
    let mut chart = ChartBuilder::on(&plot)
        .margin(12)
        .margin_left(180)
        .x_label_area_size(44)
        .build_cartesian_2d((0.1..micros(most) * 1.5).log_scale(), rows_from_below)
        .unwrap();
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .light_line_style(BLACK.mix(0.05))
        .bold_line_style(BLACK.mix(0.2))
        .label_style((FONT, 14))
        .x_label_formatter(&f64::to_string)
        .x_desc("microseconds for a request, on a logarithmic scale")
        .draw()
        .unwrap();
    for (row, (label, latencies)) in rows.iter().enumerate() {
        let height = (rows.len() - row) as f64 - 0.5;
        let points: Vec<_> = latencies.iter().map(|latency| (micros(*latency), height)).collect();
        chart.draw_series(LineSeries::new(points.clone(), BLACK.mix(0.4).stroke_width(2))).unwrap();
        let markers = points.into_iter().enumerate();
        chart.draw_series(markers.map(|(quantile, at)| EmptyElement::at(at) + marker(quantile))).unwrap();
        let (left, top) = chart.backend_coord(&(0.1, height));
        area.draw(&Text::new((*label).to_owned(), (left - 12, top), right_of_center())).unwrap();
    }
    for (quantile, label) in QUANTILES.iter().enumerate() {
        let at = (200 + 110 * i32::try_from(quantile).unwrap(), 20);
        legend.draw(&(EmptyElement::at(at) + marker(quantile))).unwrap();
        legend.draw(&Text::new((*label).to_owned(), (at.0 + 14, at.1 - 7), (FONT, 14))).unwrap();
    }
}

fn right_of_center() -> TextStyle<'static> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    TextStyle::from((FONT, 14)).pos(Pos::new(HPos::Right, VPos::Center))
}

fn drawn(size: (u32, u32), draw: impl FnOnce(&Area<'_>)) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE).unwrap();
    draw(&area);
    area.present().unwrap();
    drop(area);
    svg
}

/// Each number has a shape and a color of its own.
fn marker(number: usize) -> Polygon<(i32, i32)> {
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
    Polygon::new(shapes[number], COLORS[number].filled())
}
