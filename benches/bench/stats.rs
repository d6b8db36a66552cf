//! Medians and percentiles.

/// The middle value; zero of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Percentiles of latencies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Percentiles {
    /// How many there were.
    pub(crate) count: usize,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Milliseconds.
    pub(crate) p999: f64,
}

impl Percentiles {
    /// Of these latencies, in nanoseconds.
    pub(crate) fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: f64| {
            let index = (share * nanos.len() as f64).ceil() as usize;
            let nanos = nanos.get(index.saturating_sub(1)).copied();
            nanos.unwrap_or_default() as f64 / 1e6
        };
        Self {
            count: nanos.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }

    /// The medians of several rounds' percentiles.
    pub(crate) fn median_of(rounds: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(rounds.iter().map(pick));
        Self {
            count: rounds.iter().map(|round| round.count).sum(),
            p50: of(|round| round.p50),
            p99: of(|round| round.p99),
            p999: of(|round| round.p999),
        }
    }
}
