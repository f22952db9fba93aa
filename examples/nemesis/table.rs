//! The tables at the end: what each kind of fault did, and what the promise came to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    checker::{Finding, Ledger, Verdict},
    faults::Fault,
};

/// One fault (or two at once), and what followed.
pub struct Round {
    pub faults: Vec<Fault>,
    pub at: Instant,
    /// From the healing until every kind of message flowed to every reader; `None`: never.
    pub recovery: Option<Duration>,
}

/// What is counted for each kind of fault, in the order of the table.
const FINDINGS: [&str; 7] = ["lost", "unseen", "phantom", "duplicated", "reordered", "diverged", "resets"];

#[derive(Default)]
struct Row {
    count: usize,
    recoveries: Vec<Duration>,
    findings: [usize; FINDINGS.len()],
}

/// Prints a row for each kind of fault. What was found counts for the faults that were the newest when it happened: for
/// both when there were two, and once in the last row. What was found after `settling` began counts for none of them:
/// then all histories of the run are read on from, at once.
pub fn print_faults(rounds: &[Round], settling: Instant, verdict: &Verdict) {
    let mut rows: BTreeMap<&str, Row> = Fault::ALL.iter().map(|fault| (fault.as_str(), Row::default())).collect();
    let mut total = Row::default();
    let names = |round: &Round| round.faults.iter().map(|fault| fault.as_str()).collect::<BTreeSet<_>>();
    for round in rounds {
        for name in names(round) {
            rows.entry(name).or_default().note(round);
        }
        total.note(round);
    }
    for (kind, list) in findings_of(verdict).into_iter().enumerate() {
        for Finding { at, .. } in list {
            let round = rounds.iter().rev().find(|round| round.at <= *at);
            let names = match round {
                _ if *at >= settling => ["(after all)"].into(),
                Some(round) => names(round),
                None => ["(before all)"].into(),
            };
            for name in names {
                rows.entry(name).or_default().findings[kind] += 1;
            }
            total.findings[kind] += 1;
        }
    }
    println!("| fault | count | {} | recovery: median | max |", FINDINGS.join(" | "));
    println!("|---|{}---|---|---|", "---|".repeat(FINDINGS.len()));
    for (name, row) in rows {
        println!("| {name} | {} |", row.cells());
    }
    println!("| all rounds | {} |", total.cells());
}

/// Prints what the promise came to, over the whole run.
pub fn print_promise(verdict: &Verdict, ledger: &Ledger) {
    let answers: Vec<_> = ledger.answers.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    println!("| | |");
    println!("|---|---|");
    println!("| messages acknowledged | {} |", verdict.acknowledged);
    println!("| events told to readers | {} |", verdict.events);
    for (name, list) in FINDINGS.into_iter().zip(findings_of(verdict)) {
        println!("| {name} | {} |", list.len());
    }
    println!("| answers that must not be, and silence | {} |", verdict.scandals.len());
    println!("| answers to POST by status (0: none) | {} |", answers.join(", "));
    let slowest = ledger.slowest.iter().map(|(status, time)| format!("{status}: {:.2} s", time.as_secs_f64()));
    println!("| the slowest of each | {} |", slowest.collect::<Vec<_>>().join(", "));
}

fn findings_of(verdict: &Verdict) -> [&[Finding]; FINDINGS.len()] {
    [
        &verdict.lost,
        &verdict.unseen,
        &verdict.phantoms,
        &verdict.repeated,
        &verdict.reordered,
        &verdict.diverged,
        &verdict.resets,
    ]
}

impl Row {
    fn note(&mut self, round: &Round) {
        self.count += 1;
        self.recoveries.extend(round.recovery);
    }

    fn cells(mut self) -> String {
        self.recoveries.sort_unstable();
        let secs = |at: Option<&Duration>| at.map_or("-".into(), |time| format!("{:.2} s", time.as_secs_f64()));
        let (median, max) = (secs(self.recoveries.get(self.recoveries.len() / 2)), secs(self.recoveries.last()));
        let findings = self.findings.map(|count| count.to_string()).join(" | ");
        format!("{} | {findings} | {median} | {max}", self.count)
    }
}
