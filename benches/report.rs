//! What the other benches have found: the table of all targets, printed, and the plots of `src/docs`, drawn.
//!
//! `cargo bench && cargo bench --bench report`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to

mod support;

use std::fs;

use plotters::{coord::Shift, prelude::*};
use support::{
    figures::{self, Figures},
    ratios::table,
};

fn main() {
    let figures = figures::all();
    print!("{}", table(&figures));
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
const QUANTILES: [&str; 3] = ["p50", "p99", "p99.9"];
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
    let lines: Vec<_> = LINES.iter().map(|(case, label)| Some((*label, costs(case)?))).collect::<Option<_>>()?;
    Some(drawn((860, 460), |area| draw_threads(area, &lines)))
}

fn draw_threads(area: &Area<'_>, lines: &[(&str, Vec<f64>)]) {
    let most = lines.iter().flat_map(|(_, costs)| costs).fold(0.0, |most: f64, cost| most.max(*cost));
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
        .x_label_formatter(&|threads| format!("{threads:.0}"))
        .draw()
        .unwrap();
    for (line, (label, costs)) in lines.iter().enumerate() {
        let points: Vec<_> = THREADS.iter().map(|threads| f64::from(*threads)).zip(costs.iter().copied()).collect();
        chart.draw_series(LineSeries::new(points.clone(), COLORS[line].stroke_width(2))).unwrap();
        chart.draw_series(points.into_iter().map(|point| EmptyElement::at(point) + marker(line))).unwrap();
        let at = (16, 70 + 26 * i32::try_from(line).unwrap());
        legend.draw(&PathElement::new([(at.0 - 14, at.1), (at.0 + 14, at.1)], COLORS[line].stroke_width(2))).unwrap();
        legend.draw(&(EmptyElement::at(at) + marker(line))).unwrap();
        legend.draw(&Text::new((*label).to_owned(), (at.0 + 22, at.1 - 7), (FONT, 14))).unwrap();
    }
}

fn cost_refresh(figures: &Figures) -> Option<String> {
    const ROWS: [(&str, &str); 6] = [
        ("bare", "no token"),
        ("oauth_renewal", "tower-oauth, renewed"),
        ("oauth_invalidate", "tower-oauth, refused"),
        ("rw_lock", "std RwLock"),
        ("watch", "tokio watch"),
        ("mutex_over_refresh", "tokio Mutex"),
    ];
    let latency = |case: &str, quantile: &&str| figures.get(&format!("refresh/{case} {quantile}")).copied();
    let latencies = |case| QUANTILES.iter().map(|quantile| latency(case, quantile)).collect::<Option<Vec<f64>>>();
    let rows: Vec<_> = ROWS.iter().map(|(case, label)| Some((*label, latencies(case)?))).collect::<Option<_>>()?;
    Some(drawn((860, 400), |area| draw_refresh(area, &rows)))
}
