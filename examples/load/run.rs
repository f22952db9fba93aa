//! One run: connect, warm up, measure, wait for the rest, judge.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{
    bare::BareStream,
    flags::{Plan, Rate, Target},
    http::{Site, post_once},
    process::{self, Usage},
    publishers::Publishers,
    readers::{Readers, wait_until_ready},
    stamp::{Nanos, now},
    stats::Percentiles,
};

/// The pause between the last connection and the first message, in nanoseconds.
const LEAD_NANOS: Nanos = 100_000_000;
/// How long idle connections are left alone before their memory is read, in seconds.
const SETTLE_SECS: u64 = 3;
/// Of fewer connections the memory can not be told from what a server takes anyway when it begins to work.
const CONNECTIONS_MIN: usize = 100;
/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// What is measured.
pub struct Subject {
    pub kind: Kind,
    pub target: Target,
    pub site: Site,
    /// Its process; without it there are no costs.
    pub pid: Option<u32>,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Publishers, through the server or past it.
    Server,
    /// The program itself, which has no database: `benches/ceiling`.
    Ceiling,
}

/// What one run has shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// From when a message was meant to be sent until a reader had read it.
    pub delay: Option<Percentiles>,
    /// The same until MongoDB's own change stream showed it to the bare driver.
    pub bare_delay: Option<Percentiles>,
    /// The same until the writer had its acknowledgement.
    pub ack: Option<Percentiles>,
    pub accepted_per_second: f64,
    pub deliveries_per_second: f64,
    /// Bytes on the wire, all envelopes included.
    pub bytes_per_delivery: Option<f64>,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub damaged: u64,
    pub resets: u64,
    pub foreign: u64,
    pub disconnected: u64,
    pub first_disconnection: Option<String>,
    pub errors: BTreeMap<String, u64>,
    /// Processor time in cores: 1 = one processor all the time. That of the server without its children.
    pub server_cores: Option<f64>,
    /// Of a MongoDB that the server has started.
    pub database_cores: Option<f64>,
    pub load_cores: f64,
    /// Of everything else on the machine: when it is not small, the numbers are not to be trusted.
    pub other_cores: f64,
    pub server_micros_per_delivery: Option<f64>,
    pub server_micros_per_message: Option<f64>,
    pub server_resident_bytes: Option<u64>,
    pub bytes_per_connection: Option<f64>,
}

/// What the counters say at one moment.
struct Reading {
    at: Instant,
    accepted: u64,
    deliveries: u64,
    server: Option<Usage>,
    database: Usage,
    load: Usage,
    machine_secs: f64,
}

/// Measures once. `tell` gets a phase, how far it is and how far it goes.
pub async fn measure(
    subject: &Subject,
    plan: &Plan,
    threads: u16,
    tell: &dyn Fn(&str, u64, u64),
) -> anyhow::Result<Measured> {
    let resident_before = resident(subject);
    let readers = Readers::start(&subject.site, plan, threads)?;
    let (_, all) = readers.ready();
    wait_until_ready(&readers, plan, |ready| tell("connecting", ready as u64, all as u64)).await?;
    let bytes_per_connection = match resident_before {
        Some(before) if all >= CONNECTIONS_MIN => {
            sleep(Duration::from_secs(if plan.idle > 0 { SETTLE_SECS } else { 0 })).await;
            resident(subject).map(|after| after.saturating_sub(before) as f64 / all as f64)
        }
        _ => None,
    };
    let bare = match (plan.bare_stream, &subject.target.mongodb_uri) {
        (true, Some(uri)) => Some(BareStream::open(uri, &subject.target.database)?),
        (true, None) => anyhow::bail!("--bare-stream needs --mongodb-uri beside --url"),
        _ => None,
    };

    let start = now() + LEAD_NANOS;
    let from = start + (plan.warmup_seconds * 1e9) as Nanos;
    let until = from + (plan.seconds * 1e9) as Nanos;
    readers.measure(from, until);
    if let Some(bare) = &bare {
        bare.measure(from, until);
    }
    let writing = Writing::start(subject, plan, &readers, start, (from, until)).await?;
    wait(from, plan.warmup_seconds, |done, all| tell("warming up", done, all)).await;
    let first = read_counters(subject, &readers, &writing)?;
    wait(until, plan.seconds, |done, all| tell("measuring", done, all)).await;
    let last = read_counters(subject, &readers, &writing)?;

    tell("waiting for the rest", 0, 1);
    let mut measured = between(&first, &last);
    let written = writing.finish(subject).await?;
    let accepted: u64 = written.sent.iter().map(|sent| u64::from(*sent)).sum::<u64>() - written.unsure.len() as u64;
    let deadline = Instant::now() + Duration::from_secs_f64(plan.drain_seconds);
    while plan.readers > 0 && readers.progress().slowest() < accepted && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let disconnection = readers.failure();
    let verdict = readers.finish(&written.sent, |writer, sequence| written.unsure.contains(&(writer, sequence)));
    measured.delay = Percentiles::of(&verdict.delays);
    measured.bytes_per_delivery = (verdict.deliveries > 0).then(|| verdict.bytes as f64 / verdict.deliveries as f64);
    measured.ack = written.acks;
    measured.bare_delay = bare.and_then(|bare| Percentiles::of(&bare.finish()));
    measured.errors = written.errors;
    measured.bytes_per_connection = bytes_per_connection;
    (measured.lost, measured.duplicated, measured.reordered) = (verdict.lost, verdict.duplicated, verdict.reordered);
    (measured.damaged, measured.resets, measured.foreign) = (verdict.damaged, verdict.resets, verdict.foreign);
    (measured.disconnected, measured.first_disconnection) = (verdict.disconnected, disconnection);
    Ok(measured)
}

/// Who writes in this run.
enum Writing {
    Publishers(Publishers),
    Ceiling,
}

/// What was written.
struct Written {
    sent: Vec<u32>,
    unsure: std::collections::HashSet<(u16, u32)>,
    acks: Option<Percentiles>,
    errors: BTreeMap<String, u64>,
}

impl Writing {
    async fn start(
        subject: &Subject,
        plan: &Plan,
        readers: &Readers,
        start: Nanos,
        window: (Nanos, Nanos),
    ) -> anyhow::Result<Self> {
        match subject.kind {
            Kind::Server => {
                let Subject { site, target, .. } = subject;
                let publishers = Publishers::start(site, target, plan, readers.progress(), start, window).await?;
                Ok(Writing::Publishers(publishers))
            }
            Kind::Ceiling => {
                let rate = match plan.rate {
                    Rate::PerSecond(rate) => rate.to_string(),
                    Rate::Max(_) => "max".to_owned(),
                };
                let order = format!("/publish?rate={rate}&start={start}&until={}", window.1);
                if plan.readers > 0 {
                    post_once(&subject.site, &order, "").await.context("the ceiling")?;
                }
                Ok(Writing::Ceiling)
            }
        }
    }

    fn accepted(&self) -> u64 {
        match self {
            Writing::Publishers(publishers) => publishers.accepted(),
            Writing::Ceiling => 0,
        }
    }

    async fn finish(self, subject: &Subject) -> anyhow::Result<Written> {
        match self {
            Writing::Publishers(publishers) => {
                let records = publishers.finish().await?;
                Ok(Written {
                    sent: records.sent,
                    unsure: records.unsure,
                    acks: Percentiles::of(&records.acks),
                    errors: records.errors,
                })
            }
            Writing::Ceiling => {
                let answer = post_once(&subject.site, "/published", "").await.context("the ceiling")?;
                let sent = answer.trim().parse().with_context(|| format!("the ceiling has published `{answer}`"))?;
                Ok(Written { sent: vec![sent], unsure: Default::default(), acks: None, errors: BTreeMap::new() })
            }
        }
    }
}

fn resident(subject: &Subject) -> Option<u64> {
    Some(process::usage(subject.pid?).ok()?.resident_bytes)
}

fn read_counters(subject: &Subject, readers: &Readers, writing: &Writing) -> anyhow::Result<Reading> {
    Ok(Reading {
        at: Instant::now(),
        accepted: writing.accepted(),
        deliveries: readers.deliveries(),
        server: subject.pid.map(process::usage).transpose().context("the server is gone")?,
        database: subject.pid.map(process::children_of).unwrap_or_default(),
        load: process::own()?,
        machine_secs: process::machine_busy_secs(),
    })
}

fn between(first: &Reading, last: &Reading) -> Measured {
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let (accepted, deliveries) = (last.accepted - first.accepted, last.deliveries - first.deliveries);
    let cores = |first: Usage, last: Usage| (last.cpu_secs - first.cpu_secs) / seconds;
    let server_cores = first.server.zip(last.server).map(|(first, last)| cores(first, last));
    let database = cores(first.database, last.database);
    let load = cores(first.load, last.load);
    let micros_per = |count: u64| server_cores.filter(|_| count > 0).map(|cores| cores * seconds * 1e6 / count as f64);
    let known = server_cores.unwrap_or_default() + database + load;
    Measured {
        seconds,
        accepted_per_second: accepted as f64 / seconds,
        deliveries_per_second: deliveries as f64 / seconds,
        server_cores,
        database_cores: server_cores.filter(|_| last.database.cpu_secs > 0.0).map(|_| database),
        load_cores: load,
        other_cores: ((last.machine_secs - first.machine_secs) / seconds - known).max(0.0),
        server_micros_per_delivery: micros_per(deliveries),
        server_micros_per_message: micros_per(accepted),
        server_resident_bytes: last.server.map(|usage| usage.resident_bytes),
        ..Measured::default()
    }
}

/// Waits until `until`, which is so many seconds after the beginning of what is waited for.
async fn wait(until: Nanos, seconds: f64, tell: impl Fn(u64, u64)) {
    let all = (seconds * 1_000.0) as u64;
    loop {
        let left = Duration::from_nanos(until.saturating_sub(now()));
        tell(all.saturating_sub(left.as_millis() as u64), all);
        if left.is_zero() {
            return;
        }
        sleep(left.min(SHOW_EVERY)).await;
    }
}
