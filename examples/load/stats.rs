//! Delays as people read them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest delay that is told apart, in microseconds: ten minutes.
const DELAY_MICROS_MAX: u64 = 600_000_000;

/// Delays in microseconds, exact to three digits.
pub type Delays = Histogram<u64>;

/// None yet.
pub fn no_delays() -> Delays {
    Histogram::new_with_bounds(1, DELAY_MICROS_MAX, 3).expect("bounds that fit each other")
}

/// Counts a delay of so many nanoseconds.
pub fn record(delays: &mut Delays, nanos: u64) {
    delays.saturating_record(nanos.div_ceil(1_000).max(1));
}

/// What is told of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Percentiles {
    /// `None` when nothing was measured.
    pub fn of(delays: &Delays) -> Option<Self> {
        let millis = |quantile: f64| delays.value_at_quantile(quantile) as f64 / 1_000.0;
        (!delays.is_empty()).then(|| Self {
            count: delays.len(),
            p50_ms: millis(0.5),
            p90_ms: millis(0.9),
            p99_ms: millis(0.99),
            p999_ms: millis(0.999),
            max_ms: delays.max() as f64 / 1_000.0,
        })
    }
}

/// The middle one; `None` of nothing. A median of three runs is not moved by one that something else disturbed.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut delays = no_delays();
        assert_eq!(Percentiles::of(&delays), None);
        (1..=1_000).for_each(|n| record(&mut delays, n * 1_000_000));
        let found = Percentiles::of(&delays).unwrap();
        assert_eq!(found.count, 1_000);
        for (is, expected) in [(found.p50_ms, 500.0), (found.p99_ms, 990.0), (found.max_ms, 1_000.0)] {
            assert!((is - expected).abs() < expected / 500.0, "{is} is not {expected}");
        }
        // A delay beyond the histogram counts as its longest rather than not at all.
        record(&mut delays, u64::MAX);
        assert_eq!(delays.len(), 1_001);
    }

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
