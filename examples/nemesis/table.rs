//! The table at the end: what each kind of fault did.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::checker::{Finding, Verdict};

/// One fault (or two at once), and what followed.
pub struct Round {
    pub name: String,
    pub at: Instant,
    /// From the healing until every kind of message flowed to every reader; `None`: never.
    pub recovery: Option<Duration>,
}

#[derive(Default)]
struct Row {
    count: usize,
    recoveries: Vec<Duration>,
    /// Lost, unseen, repeated, reordered, resets.
    findings: [usize; 5],
}

/// Prints it. What was found counts for the fault that was the newest when it happened.
pub fn print_table(rounds: &[Round], verdict: &Verdict) {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for round in rounds {
        let row = rows.entry(&round.name).or_default();
        row.count += 1;
        row.recoveries.extend(round.recovery);
    }
    let kinds = [&verdict.lost, &verdict.unseen, &verdict.repeated, &verdict.reordered, &verdict.resets];
    for (kind, list) in kinds.into_iter().enumerate() {
        for Finding { at, .. } in list {
            let name = rounds.iter().rev().find(|round| round.at <= *at).map_or("(before all)", |round| &round.name);
            rows.entry(name).or_default().findings[kind] += 1;
        }
    }
    println!(
        "{:40} {:>5} {:>5} {:>6} {:>8} {:>9} {:>6}  recovery: median, max",
        "fault", "count", "lost", "unseen", "repeated", "reordered", "resets"
    );
    for (name, Row { count, mut recoveries, findings: [lost, unseen, repeated, reordered, resets] }) in rows {
        recoveries.sort_unstable();
        let secs = |at: Option<&Duration>| at.map_or("-".into(), |time| format!("{:.2} s", time.as_secs_f64()));
        let (median, max) = (secs(recoveries.get(recoveries.len() / 2)), secs(recoveries.last()));
        println!(
            "{name:40} {count:>5} {lost:>5} {unseen:>6} {repeated:>8} {reordered:>9} {resets:>6}  {median}, {max}"
        );
    }
}
