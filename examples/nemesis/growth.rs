//! Is memory flat? The judgement over what was sampled; pure.
//!
//! The logs of the servers are small here, so that they are full within the first minute; from then on nothing may
//! grow. The rule: the median of resident memory in the last window may be at most half as much again as in the first, and
//! [`SLACK_KIB`]. A window is a minute, or a third of a shorter run.

use std::time::Duration;

const WINDOW_MAX: Duration = Duration::from_secs(60);
/// What a server may come to hold that has nothing to do with time: its log, buffers of connections, and what the
/// allocator keeps of a burst.
const SLACK_KIB: u64 = 32 * 1_024;

/// What a server held at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the beginning of the run.
    pub at: Duration,
    pub resident_kib: u64,
}

/// What became of the memory of one server: medians of the first and of the last window.
#[derive(Debug)]
pub struct Growth {
    first_kib: u64,
    last_kib: u64,
}

impl Growth {
    /// `None` when a window holds no sample.
    pub fn of(samples: &[Sample], lasted: Duration) -> Option<Self> {
        let window = WINDOW_MAX.min(lasted / 3);
        let first_kib = median(samples.iter().filter(|sample| sample.at <= window))?;
        let last_kib = median(samples.iter().filter(|sample| sample.at + window >= lasted))?;
        Some(Self { first_kib, last_kib })
    }

    /// See the module for the rule.
    pub fn is_bounded(&self) -> bool {
        self.last_kib <= self.first_kib * 3 / 2 + SLACK_KIB
    }

    fn cells(&self) -> String {
        let word = if self.is_bounded() { "flat" } else { "GROWN" };
        format!("{} | {} | {word}", mib(self.first_kib), mib(self.last_kib))
    }
}

fn median<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<u64> {
    let mut resident_kib: Vec<_> = samples.map(|sample| sample.resident_kib).collect();
    resident_kib.sort_unstable();
    resident_kib.get(resident_kib.len() / 2).copied()
}

/// Prints what became of the memory of each server, with the most that each had over all its lives.
pub fn print_memory(growths: &[Option<Growth>], peaks_kib: &[u64]) {
    println!("| server | memory at first | memory at last | verdict | peak |");
    println!("|---|---|---|---|---|");
    for (server, (growth, peak_kib)) in growths.iter().zip(peaks_kib).enumerate() {
        let cells = growth.as_ref().map_or("- | - | not measured".into(), Growth::cells);
        println!("| {} | {cells} | {} |", server + 1, mib(*peak_kib));
    }
}

fn mib(kib: u64) -> String {
    format!("{:.0} MiB", kib as f64 / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is sampled for `secs` seconds; `mib` says what it holds after so many of them.
    fn judged(secs: u64, mib: impl Fn(u64) -> u64) -> bool {
        let at = |second| Sample { at: Duration::from_secs(second), resident_kib: mib(second) * 1_024 };
        let samples: Vec<_> = (0..secs).map(at).collect();
        Growth::of(&samples, Duration::from_secs(secs)).expect("it is measured").is_bounded()
    }

    #[test]
    fn what_grows_with_time_is_found_and_a_burst_is_forgiven() {
        assert!(judged(600, |_| 60), "nothing changes");
        assert!(judged(600, |second| 40 + second.min(40)), "the log fills");
        assert!(!judged(600, |second| 50 + second / 5), "a quarter of a megabyte a second");
        assert!(judged(60, |second| if second == 30 { 500 } else { 60 }), "a burst that was let go");
        assert!(!judged(60, |second| 50 + 2 * second), "a short run is judged as well");
    }
}
