//! Bars, as SVG that reads on light and dark pages.

use std::fmt::Write;

/// Bars that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// What they show.
    pub(crate) title: String,
    /// A name, a figure, and how the figure is written.
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    /// Whose it is.
    pub(crate) name: String,
    /// How long it is.
    pub(crate) figure: f64,
    /// What stands at its end.
    pub(crate) text: String,
    /// Whether it is the bridge's.
    pub(crate) ours: bool,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 16.0;
const STEP: f64 = 21.0;
const TITLE: f64 = 26.0;
const GAP: f64 = 12.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2937}.title{font-weight:600}\
.heading{font-size:16px;font-weight:600}.name{text-anchor:end}.ours{fill:#0f766e}.peer{fill:#94a3b8}\
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.ours{fill:#2dd4bf}.peer{fill:#64748b}}";

/// The plot. Every group has its own scale, since what they show differs by orders of magnitude.
pub(crate) fn svg(heading: &str, groups: &[Group]) -> String {
    let height: f64 = groups
        .iter()
        .map(|group| TITLE + GAP + STEP * group.bars.len() as f64)
        .sum::<f64>()
        + 44.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{heading}\">\n<style>{STYLE}</style>\n\
         <text class=\"heading\" x=\"8\" y=\"24\">{heading}</text>\n",
        heading = escaped(heading)
    );
    let mut y = 44.0;
    for group in groups {
        let longest = group.bars.iter().map(|bar| bar.figure).fold(0.0, f64::max);
        let title = escaped(&group.title);
        line(
            &mut out,
            format_args!(
                "<text class=\"title\" x=\"8\" y=\"{:.0}\">{title}</text>",
                y + 16.0
            ),
        );
        y += TITLE;
        for bar in &group.bars {
            let length = (WIDTH - LEFT - RIGHT) * bar.figure / longest.max(f64::MIN_POSITIVE);
            let class = if bar.ours { "ours" } else { "peer" };
            let (name, text) = (escaped(&bar.name), escaped(&bar.text));
            let base = y + 13.0;
            line(
                &mut out,
                format_args!(
                    "<text class=\"name\" x=\"{:.0}\" y=\"{base:.0}\">{name}</text>\
                     <rect class=\"{class}\" x=\"{LEFT:.0}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
                     <text x=\"{:.1}\" y=\"{base:.0}\">{text}</text>",
                    LEFT - 8.0,
                    LEFT + length + 6.0,
                ),
            );
            y += STEP;
        }
        y += GAP;
    }
    out + "</svg>\n"
}

fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(out, "{arguments}").ok();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
