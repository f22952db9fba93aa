//! What is told at the end: a table for people, JSON for programs.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::{flags::Plan, run::Measured, stats::median};

/// Everything of one invocation, as `--json` writes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: String,
    pub cores: usize,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
    /// The command line.
    pub arguments: Vec<String>,
    pub results: Vec<Outcome>,
}

/// All runs of one plan with one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was to be shown, such as the name of a scenario.
    pub name: String,
    /// Who was measured, and its version.
    pub subject: String,
    pub plan: Plan,
    pub runs: Vec<Measured>,
}

impl Outcome {
    /// The median over the runs of something that was measured in them.
    pub fn median(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        median(self.runs.iter().filter_map(of))
    }

    fn sum(&self, of: impl Fn(&Measured) -> u64) -> u64 {
        self.runs.iter().map(of).sum()
    }

    /// What went wrong, in words; nothing when every message came once and in order.
    pub fn faults(&self) -> Vec<String> {
        let counts = [
            ("lost", self.sum(|run| run.lost)),
            ("duplicated", self.sum(|run| run.duplicated)),
            ("reordered", self.sum(|run| run.reordered)),
            ("damaged", self.sum(|run| run.damaged)),
            ("resets", self.sum(|run| run.resets)),
            ("of other writers", self.sum(|run| run.foreign)),
            ("disconnected", self.sum(|run| run.disconnected)),
        ];
        let mut faults: Vec<_> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
        faults.extend(self.runs.iter().filter_map(|run| run.first_disconnection.clone()));
        for run in &self.runs {
            faults.extend(run.errors.iter().map(|(kind, count)| format!("{count} x {kind}")));
        }
        faults
    }

    /// A table for people: one line for each quantity that was measured, medians of the runs.
    pub fn table(&self) -> String {
        let plan = &self.plan;
        let mut table = String::new();
        let runs = self.runs.len();
        let _ = writeln!(table, "{}: {} ({runs} run{})", self.name, self.subject, if runs == 1 { "" } else { "s" });
        if plan.readers > 0 {
            let _ = writeln!(table, "  {} readers, {}", count(plan.readers as f64), plan.rate);
        }
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(table, "  {name:<28}{value}");
            }
        };
        line("delay, ms", self.percentiles(|run| run.delay));
        line("  of the bare driver, ms", self.percentiles(|run| run.bare_delay));
        line("acknowledged after, ms", self.percentiles(|run| run.ack));
        line("accepted per second", self.nonzero(|run| Some(run.accepted_per_second)).map(count));
        line("deliveries per second", self.nonzero(|run| Some(run.deliveries_per_second)).map(count));
        line("bytes per delivery", self.median(|run| run.bytes_per_delivery).map(count));
        line("server CPU per delivery", self.median(|run| run.server_micros_per_delivery).map(micros));
        line("server CPU per message", self.median(|run| run.server_micros_per_message).map(micros));
        line("memory per connection", self.median(|run| run.bytes_per_connection).map(kilobytes));
        line("memory of the server", self.median(|run| Some(run.server_resident_bytes? as f64)).map(megabytes));
        let cores =
            |of: fn(&Measured) -> Option<f64>| self.median(of).map_or("?".to_owned(), |cores| format!("{cores:.2}"));
        let all = [
            ("server", cores(|run| run.server_cores)),
            ("its MongoDB", cores(|run| run.database_cores)),
            ("load", cores(|run| Some(run.load_cores))),
            ("all else", cores(|run| Some(run.other_cores))),
        ];
        let all = all.iter().filter(|(_, cores)| cores != "?").map(|(name, cores)| format!("{name} {cores}"));
        line("cores in use", Some(all.collect::<Vec<_>>().join(", ")));
        if plan.readers > 0 {
            let faults = self.faults();
            let words = if faults.is_empty() { "all, once, in order".to_owned() } else { faults.join("; ") };
            line("delivered", Some(words));
        }
        table
    }

    fn nonzero(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.median(of).filter(|value| *value > 0.0)
    }

    fn percentiles(&self, of: impl Fn(&Measured) -> Option<super::stats::Percentiles>) -> Option<String> {
        let part = |quantile: fn(super::stats::Percentiles) -> f64| self.median(|run| of(run).map(quantile));
        Some(format!(
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            millis(part(|p| p.p50_ms)?),
            millis(part(|p| p.p90_ms)?),
            millis(part(|p| p.p99_ms)?),
            millis(part(|p| p.p999_ms)?),
            millis(part(|p| p.max_ms)?),
        ))
    }
}

/// Milliseconds with three digits that mean something.
pub fn millis(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A count with separators.
pub fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds.
pub fn micros(value: f64) -> String {
    format!("{} us", millis(value))
}

/// Kilobytes, of 1,024.
pub fn kilobytes(bytes: f64) -> String {
    format!("{:.1} KB", bytes / 1_024.0)
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1_048_576.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(999.6), "1,000");
        assert_eq!(count(2_530_000.0), "2,530,000");
        assert_eq!([millis(0.394), millis(12.34), millis(270.4)], ["0.39", "12.3", "270"]);
        assert_eq!(kilobytes(1_741.0), "1.7 KB");
    }
}
