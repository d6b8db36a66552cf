//! A flame graph of what `perf script` prints: wide frames are where the time goes, and what they
//! stand on called them.

use std::{collections::BTreeMap, fmt::Write};

const WIDTH: f64 = 1200.0;
const ROW: f64 = 16.0;
/// Frames narrower than this, in pixels, are left out.
const NARROW: f64 = 0.4;
/// Width of a letter, in pixels.
const LETTER: f64 = 6.6;

/// A frame, and what it called.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    samples: u64,
    calls: BTreeMap<String, Frame>,
}

impl Frame {
    /// Adds the samples of `perf script -F comm,ip,sym`: blocks that begin with the thread's name,
    /// followed by its frames, the innermost first.
    pub(crate) fn read(text: &str) -> Self {
        let mut root = Self::default();
        for block in text.split("\n\n") {
            let mut lines = block.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else { continue };
            let frames: Vec<String> = lines.map(symbol).collect();
            let mut frame = &mut root;
            frame.samples += 1;
            let way = std::iter::once(thread.trim().to_owned()).chain(frames.into_iter().rev());
            for name in way {
                frame = frame.calls.entry(name).or_default();
                frame.samples += 1;
            }
        }
        root
    }

    /// How many samples there are.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// The frames in which most samples ended, with their share of all.
    pub(crate) fn hottest(&self, count: usize) -> Vec<(String, f64)> {
        let mut own = BTreeMap::new();
        self.add_own(&mut own);
        let mut own: Vec<(String, f64)> = own
            .into_iter()
            .map(|(name, samples)| (name, samples as f64 / self.samples.max(1) as f64))
            .collect();
        own.sort_by(|a, b| b.1.total_cmp(&a.1));
        own.truncate(count);
        own
    }

    fn add_own(&self, own: &mut BTreeMap<String, u64>) {
        for (name, frame) in &self.calls {
            let called: u64 = frame.calls.values().map(|call| call.samples).sum();
            *own.entry(name.clone()).or_default() += frame.samples - called;
            frame.add_own(own);
        }
    }

    fn depth(&self) -> usize {
        let deepest = self.calls.values().map(Self::depth).max();
        deepest.map_or(0, |depth| depth + 1)
    }

    /// The picture. A frame's whole name and share are shown where the pointer rests.
    pub(crate) fn svg(&self, heading: &str) -> String {
        let height = ROW * (self.depth() + 3) as f64;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">\n\
             <style>text{{font:11px monospace;fill:#111}}rect{{stroke:#fff;stroke-width:.5}}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"8\" y=\"20\">{}</text>\n",
            escaped(heading)
        );
        let floor = height - ROW;
        self.draw_calls(
            &mut out,
            0.0,
            floor,
            WIDTH / self.samples.max(1) as f64,
            self.samples,
        );
        out + "</svg>\n"
    }

    fn draw_calls(&self, out: &mut String, mut x: f64, y: f64, scale: f64, all: u64) {
        for (name, frame) in &self.calls {
            let width = frame.samples as f64 * scale;
            if width >= NARROW {
                let share = 100.0 * frame.samples as f64 / all.max(1) as f64;
                let full = escaped(name);
                let letters = (width / LETTER) as usize;
                let shown = if letters < 3 {
                    String::new()
                } else {
                    escaped(&name.chars().take(letters - 1).collect::<String>())
                };
                // Writing to a string cannot fail.
                writeln!(
                    out,
                    "<g><title>{full}: {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" \
                     height=\"{ROW}\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.0}\">{shown}</text></g>",
                    colour(name),
                    x + 2.0,
                    y + 12.0,
                )
                .ok();
                frame.draw_calls(out, x, y - ROW, scale, all);
            }
            x += width;
        }
    }
}

/// The name in a line such as `  55d0c8 tokio::runtime::task::h0123456789abcdef`.
fn symbol(line: &str) -> String {
    let name = line.trim().split_once(' ').map_or("?", |(_, name)| name);
    let hash = name.rfind("::h").filter(|at| name.len() - at == 19);
    name[..hash.unwrap_or(name.len())].to_owned()
}

/// The same for the same library.
fn colour(name: &str) -> &'static str {
    let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if is(&["hookbridge"]) {
        "#5eead4"
    } else if is(&["lapin", "amq_protocol", "async_rs"]) {
        "#fdba74"
    } else if is(&["reqwest", "hyper", "http::"]) {
        "#93c5fd"
    } else if is(&["tokio"]) {
        "#d9f99d"
    } else if is(&["alloc", "malloc", "free"]) {
        "#fca5a5"
    } else {
        "#e5e7eb"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
