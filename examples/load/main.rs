//! Measures a Corriente server: `cargo run --release --example load -- --readers 1000 --rate 100`.
//!
//! `flags.rs` says what can be asked for, and `--help` says it to people; `scenario.rs` has the rows of the table in
//! `docs/performance.md`. One run is `run.rs`: `readers.rs` opens the connections and `reader.rs` reads them,
//! `publishers.rs`, `sockets.rs` and `grouped.rs` write, `stamp.rs` is what a message carries from one to the other, `process.rs` is
//! what it costs, `report.rs` is what is told.

mod bare;
mod flags;
mod frames;
mod grouped;
mod http;
mod order;
mod plot;
mod process;
mod publishers;
mod reader;
mod readers;
mod report;
mod run;
mod scenario;
mod schedule;
mod server;
mod sockets;
mod sse;
mod stamp;
mod stats;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use clap::Parser;
use flags::{Command, Flags, Plan, Target, Writers};
use http::Site;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::{Outcome, Report};
use run::{Kind, Measured, Subject};
use scenario::{Ceiling, Part, Scenario, Verdict, verdict_table};
use server::Program;

fn main() -> ExitCode {
    // One thread: it writes, and the readers have theirs. More would take processors away from the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = act(Flags::parse()) => outcome,
                // What was started is dropped, and so killed.
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(flags: Flags) -> anyhow::Result<()> {
    if let Some(Command::Plot { results, out }) = &flags.command {
        return plot::draw(results, out);
    }
    // Before anything is measured: it would be lost.
    if let Some(directory) = flags.json.as_deref().and_then(Path::parent) {
        std::fs::create_dir_all(directory).with_context(|| format!("{} can not be made", directory.display()))?;
    }
    let limit = process::raise_file_limit();
    let parts = match flags.scenario {
        Some(scenario) => scenario.parts(&flags.plan),
        None => vec![Part { name: "load".into(), plan: flags.plan.clone(), ceiling: None }],
    };
    for Part { name, plan, .. } in &parts {
        let needed = (plan.readers + plan.idle + plan.stuck + plan.publishers + 100) as u64;
        ensure!(
            needed <= limit,
            "{name} needs {needed} open files and only {limit} are allowed; try ulimit -n {needed}"
        );
    }
    let profile = match flags.target.url {
        Some(_) if !parts.iter().any(|part| part.ceiling.is_some()) => PathBuf::new(),
        _ => server::build()?,
    };
    let mut report = Report {
        machine: process::machine(),
        cores: process::cores(),
        begun: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        arguments: std::env::args().skip(1).collect(),
        results: Vec::new(),
    };
    let mut rows = Vec::new();
    for part in &parts {
        rows.push((part.name.clone(), measure_part(&flags, part, &profile, &mut report).await?));
        save(&flags, &report)?;
    }
    if !flags.no_goals && rows.iter().any(|(_, verdicts): &(String, Vec<Verdict>)| !verdicts.is_empty()) {
        print!("\n{}", verdict_table(&rows));
    }
    Ok(())
}

/// Ours and the ceiling in turn, so that whatever else the machine does meets both.
async fn measure_part(flags: &Flags, part: &Part, profile: &Path, report: &mut Report) -> anyhow::Result<Vec<Verdict>> {
    let outcome =
        |subject: String| Outcome { name: part.name.clone(), subject, plan: part.plan.clone(), runs: Vec::new() };
    let of_ceiling = match part.ceiling {
        Some(Ceiling::Inserts) => "the ceiling: the bare driver, no HTTP",
        _ => "the ceiling: no database, one thread",
    };
    let (mut ours, mut ceiling) = (outcome(String::new()), outcome(of_ceiling.into()));
    for n in 1..=flags.runs {
        let label = format!("{} {n}/{}", part.name, flags.runs);
        let (name, measured) = measure_ours(flags, &part.plan, profile, &label).await?;
        ours.subject = name;
        ours.runs.push(measured);
        let label = format!("{label} ceiling");
        match part.ceiling {
            Some(Ceiling::Fanout) => ceiling.runs.push(measure_ceiling(flags, &part.plan, profile, &label).await?),
            Some(Ceiling::Inserts) => {
                // Beside a server that has nobody to tell it to: the collection is the same, with its indexes.
                let plan = Plan { readers: 0, writers: Writers::MongodbGrouped, ..part.plan.clone() };
                ceiling.runs.push(measure_ours(flags, &plan, profile, &label).await?.1);
            }
            None => {}
        }
    }
    print!("{}", ours.table());
    let compared = part.ceiling.map(|_| &ceiling);
    if let Some(ceiling) = compared {
        print!("{}", ceiling.table());
    }
    let verdicts = Scenario::verdicts(&part.name, &ours, compared);
    report.results.push(ours);
    if part.ceiling.is_some() {
        report.results.push(ceiling);
    }
    Ok(verdicts)
}

async fn measure_ours(flags: &Flags, plan: &Plan, profile: &Path, label: &str) -> anyhow::Result<(String, Measured)> {
    let mut target = flags.target.clone();
    if let Some(url) = target.url.clone() {
        let subject = Subject { kind: Kind::Server, site: Site::find(&url).await?, pid: target.server_pid, target };
        let name = flags.target.name.clone().unwrap_or(url);
        return Ok((name, measure(&subject, plan, flags.threads, label).await?));
    }
    let program = Program::corriente(profile, target.mongodb_uri.as_deref(), &target.server_arg).await?;
    target.mongodb_uri = target.mongodb_uri.or(program.mongodb_uri.clone());
    let site = Site::find(&program.url).await?;
    let subject = Subject { kind: Kind::Server, site, pid: Some(program.pid), target };
    let measured = measure(&subject, plan, flags.threads, label).await;
    let version = program.version.clone();
    program.stop().await;
    Ok((version, measured?))
}

async fn measure_ceiling(flags: &Flags, plan: &Plan, profile: &Path, label: &str) -> anyhow::Result<Measured> {
    // It has one writer, itself.
    let plan = Plan { publishers: 1, writers: Writers::None, bare_stream: false, ..plan.clone() };
    let program = Program::ceiling(profile, plan.content_bytes).await?;
    let target = Target { mongodb_uri: None, ..flags.target.clone() };
    let site = Site::find(&program.url).await?;
    let subject = Subject { kind: Kind::Ceiling, site, pid: Some(program.pid), target };
    let measured = measure(&subject, &plan, flags.threads, label).await;
    program.stop().await;
    measured
}

/// One run with a progress bar, if anybody looks.
async fn measure(subject: &Subject, plan: &Plan, threads: u16, label: &str) -> anyhow::Result<Measured> {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(label.to_owned());
    let tell = |phase: &str, done, all| {
        bar.set_length(all);
        bar.set_position(done);
        bar.set_message(phase.to_owned());
    };
    let measured = run::measure(subject, plan, threads, &tell).await;
    bar.finish_and_clear();
    measured
}

fn save(flags: &Flags, report: &Report) -> anyhow::Result<()> {
    let Some(path) = &flags.json else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text + "\n").with_context(|| format!("{} can not be written", path.display()))
}
