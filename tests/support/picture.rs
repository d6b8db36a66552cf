//! Draws what the dashboard shows of a Prometheus, as SVG that reads on light and dark pages: a page
//! of small plots, and above them the numbers that stand alone.

use std::{fmt::Write, time::Duration};

use super::prometheus::{Prometheus, Series};

/// A panel of the dashboard.
pub struct Panel {
    pub title: String,
    /// `timeseries` or `stat`.
    pub kind: String,
    /// How Grafana writes its figures.
    pub unit: String,
    /// What it asks for, and what its series are called.
    pub queries: Vec<(String, String)>,
}

const COLUMNS: usize = 3;
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 190.0;
const GAP: f64 = 14.0;
/// Of a plot within its panel.
const LEFT: f64 = 44.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 46.0;
/// The numbers that stand alone.
const FIGURES: f64 = 64.0;
const HEAD: f64 = 40.0;
/// Series of one panel that are drawn and named.
const MOST: usize = 6;
const COLOURS: [&str; MOST] = [
    "#0f766e", "#c2410c", "#1d4ed8", "#a21caf", "#a16207", "#64748b",
];
const STYLE: &str = "text{font:11px system-ui,sans-serif;fill:#1f2937}.heading{font-size:16px;\
font-weight:600}.title{font-weight:600;font-size:12px}.figure{font-size:22px;font-weight:600}\
.axis{text-anchor:end;fill:#6b7280}.frame{fill:none;stroke:#d1d5db}\
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.axis{fill:#9ca3af}.frame{stroke:#4b5563}}";

/// The page, over the last `span`.
pub async fn draw(prometheus: &Prometheus, panels: &[Panel], span: Duration) -> String {
    let (figures, plots): (Vec<_>, Vec<_>) = panels.iter().partition(|panel| panel.kind == "stat");
    let rows = plots.len().div_ceil(COLUMNS);
    let width = number(COLUMNS) * (WIDTH + GAP) + GAP;
    let height = HEAD + FIGURES + GAP + number(rows) * (HEIGHT + GAP);
    let heading = format!(
        "hookbridge: {} seconds of a test with failures",
        span.as_secs()
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{heading}\">\n<style>{STYLE}</style>\n\
         <text class=\"heading\" x=\"{GAP}\" y=\"26\">{heading}</text>\n"
    );
    let share = (width - GAP) / number(figures.len());
    for (at, panel) in figures.iter().enumerate() {
        let (query, _) = &panel.queries[0];
        let answer = prometheus.ask(query).await;
        let figure = written(answer[0].values[0].1, &panel.unit);
        let (x, title) = (GAP + number(at) * share, escaped(&panel.title));
        line(
            &mut out,
            format_args!("<text x=\"{x:.0}\" y=\"{}\">{title}</text>", HEAD + 18.0),
        );
        line(
            &mut out,
            format_args!(
                "<text class=\"figure\" x=\"{x:.0}\" y=\"{}\">{figure}</text>",
                HEAD + 46.0
            ),
        );
    }
    for (at, panel) in plots.iter().enumerate() {
        let mut series = Vec::new();
        for (query, legend) in &panel.queries {
            for one in prometheus.ask_over(query, span).await {
                let name = named(legend, &one);
                series.push((name, one));
            }
        }
        // Those that rise highest are what a plot is about.
        series.sort_by(|(_, a), (_, b)| highest(b).total_cmp(&highest(a)));
        let x = GAP + number(at % COLUMNS) * (WIDTH + GAP);
        let y = HEAD + FIGURES + GAP + number(at / COLUMNS) * (HEIGHT + GAP);
        plot(&mut out, panel, &series, (x, y));
    }
    out + "</svg>\n"
}

fn plot(out: &mut String, panel: &Panel, series: &[(String, Series)], (x, y): (f64, f64)) {
    let top_value = series.iter().map(|(_, one)| highest(one));
    let top_value = top_value.fold(0.0, f64::max).max(1e-9) * 1.08;
    let times = || {
        let values = series.iter().flat_map(|(_, one)| &one.values);
        values.map(|(at, _)| *at)
    };
    let first = times().fold(f64::INFINITY, f64::min);
    let last = times().fold(first + 1.0, f64::max);
    let (wide, high) = (WIDTH - LEFT, HEIGHT - TOP - BOTTOM);
    let title = escaped(&panel.title);
    line(
        out,
        format_args!(
            "<text class=\"title\" x=\"{x:.0}\" y=\"{:.0}\">{title}</text>",
            y + 14.0
        ),
    );
    let (left, top) = (x + LEFT, y + TOP);
    line(
        out,
        format_args!(
            "<rect class=\"frame\" x=\"{left:.0}\" y=\"{top:.0}\" width=\"{wide:.0}\" height=\"{high:.0}\"/>"
        ),
    );
    for (figure, base) in [(top_value, top + 9.0), (0.0, top + high)] {
        let text = written(figure, &panel.unit);
        line(
            out,
            format_args!(
                "<text class=\"axis\" x=\"{:.0}\" y=\"{base:.0}\">{text}</text>",
                left - 5.0
            ),
        );
    }
    let mut written_to = x;
    for (at, (name, one)) in series.iter().take(MOST).enumerate() {
        let colour = COLOURS[at];
        let mut points = String::new();
        for (when, value) in one.values.iter().filter(|(_, value)| value.is_finite()) {
            let right = left + wide * (when - first) / (last - first);
            let up = top + high * (1.0 - value / top_value);
            write!(points, "{right:.1},{up:.1} ").unwrap();
        }
        line(
            out,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\" points=\"{}\"/>",
                points.trim_end()
            ),
        );
        let row = top + high + 15.0 + number(at / 3) * 14.0;
        if at % 3 == 0 {
            written_to = x + 4.0;
        }
        let name: String = name.chars().take(16).collect();
        line(
            out,
            format_args!(
                "<text x=\"{written_to:.0}\" y=\"{row:.0}\" style=\"fill:{colour}\">{}</text>",
                escaped(&name)
            ),
        );
        written_to += 6.2 * number(name.chars().count()) + 10.0;
    }
}

fn highest(series: &Series) -> f64 {
    let values = series.values.iter().map(|(_, value)| *value);
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// What Grafana would call a series.
fn named(legend: &str, series: &Series) -> String {
    let mut name = legend.to_owned();
    for (label, value) in &series.labels {
        // Where the bridge of a test listens says nothing to a reader.
        let value = if label == "instance" { "bridge" } else { value };
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

/// A figure as Grafana writes it, more or less.
fn written(figure: f64, unit: &str) -> String {
    match unit {
        "s" if figure > 2.0 * 86_400.0 => format!("{:.0} days", figure / 86_400.0),
        "s" if figure > 0.0 && figure < 1.0 => format!("{:.0} ms", figure * 1000.0),
        "s" => format!("{figure:.1} s"),
        "bytes" => format!("{:.0} MiB", figure / 1_048_576.0),
        "percentunit" => format!("{:.0} %", figure * 100.0),
        "cps" => format!("{figure:.1}/s"),
        _ if figure < 5.0 && figure.fract() > 0.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(out, "{arguments}").unwrap();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
