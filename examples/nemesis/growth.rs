//! Is memory flat? The judgement over what was sampled; pure.
//!
//! A server's log may grow up to its bound, which takes longer than most runs, so what counts is the memory besides it:
//! resident memory less the size of the log, as the server itself gives it. The rule: the median of the last window may
//! be at most half as much again as that of the first, and [`SLACK_KIB`]. A window is a minute, or a third of a
//! shorter run.

use std::time::Duration;

const WINDOW_MAX: Duration = Duration::from_secs(60);
/// What a server may come to hold besides its log that has nothing to do with time: buffers and caches of connections,
/// and what the allocator keeps of a burst.
const SLACK_KIB: u64 = 32 * 1_024;

/// What a server held at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the beginning of the run.
    pub at: Duration,
    pub memory: Memory,
}

#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident_kib: u64,
    /// What the log held of it.
    pub log_kib: u64,
}

/// What became of the memory of one server: medians of the first and of the last window.
#[derive(Debug)]
pub struct Growth {
    first: Memory,
    last: Memory,
}

impl Growth {
    /// `None` when a window holds no sample.
    pub fn of(samples: &[Sample], lasted: Duration) -> Option<Self> {
        let window = WINDOW_MAX.min(lasted / 3);
        let first = median(samples.iter().filter(|sample| sample.at <= window))?;
        let last = median(samples.iter().filter(|sample| sample.at + window >= lasted))?;
        Some(Self { first, last })
    }

    /// See the module for the rule.
    pub fn is_bounded(&self) -> bool {
        self.last.besides_log() <= self.first.besides_log() * 3 / 2 + SLACK_KIB
    }

    fn cells(&self) -> String {
        let of = |memory: Memory| format!("{} ({} of it the log)", mib(memory.resident_kib), mib(memory.log_kib));
        let word = if self.is_bounded() { "flat" } else { "GROWN" };
        format!("{} | {} | {word}", of(self.first), of(self.last))
    }
}

impl Memory {
    fn besides_log(self) -> u64 {
        self.resident_kib.saturating_sub(self.log_kib)
    }
}

fn median<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Memory> {
    let (mut resident, mut log): (Vec<_>, Vec<_>) =
        samples.map(|sample| (sample.memory.resident_kib, sample.memory.log_kib)).collect();
    resident.sort_unstable();
    log.sort_unstable();
    let middle = resident.len() / 2;
    Some(Memory { resident_kib: *resident.get(middle)?, log_kib: *log.get(middle)? })
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

    /// A server that is sampled for `secs` seconds; the functions say what it holds after so many of them.
    fn judged(secs: u64, resident: impl Fn(u64) -> u64, log: impl Fn(u64) -> u64) -> bool {
        let at = |second| Sample {
            at: Duration::from_secs(second),
            memory: Memory { resident_kib: resident(second) * 1_024, log_kib: log(second) * 1_024 },
        };
        let samples: Vec<_> = (0..secs).map(at).collect();
        Growth::of(&samples, Duration::from_secs(secs)).expect("it is measured").is_bounded()
    }

    #[test]
    fn a_log_that_fills_is_no_growth_and_everything_else_is() {
        assert!(judged(600, |_| 60, |_| 10), "nothing changes");
        assert!(judged(600, |second| 50 + second / 5, |second| second / 5), "the log fills");
        assert!(!judged(600, |second| 50 + second / 5, |_| 10), "something else fills");
        assert!(judged(60, |second| if second == 30 { 500 } else { 60 }, |_| 10), "a burst that was let go");
        assert!(!judged(60, |second| 50 + 2 * second, |_| 10), "a short run is judged as well");
    }
}
