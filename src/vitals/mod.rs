//! How the server is: now, and over the last quarter of an hour, for people who look and for its own gauges.
//!
//! Nothing is measured here. Every five seconds the [`VitalsKeeper`] reads the counters that the other parts move
//! anyway, and keeps what happened between two readings.

mod history;
mod rooms;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

pub use history::Sample;

use crate::{
    feed::{Feed, Mark},
    message::RoomName,
    mongo::{Invalid, ServerReport},
    presence::{KnownServer, Presence},
    telemetry::{Metrics, ReasonLabels},
    watcher::{Told, WatcherStatus},
};
use history::{Counters, SAMPLES_MAX, connections, remember};
use rooms::RoomWindow;

/// How often the counters are read, in seconds.
pub const SAMPLE_SECS: u64 = 5;

/// How the server is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sources: VitalSources,
    record: Mutex<Record>,
}

/// What is looked at.
#[derive(Debug, Clone)]
pub struct VitalSources {
    /// What clients read.
    pub live: Feed,
    /// The stream.
    pub watcher: WatcherStatus,
    /// The counters.
    pub metrics: Metrics,
    /// The other servers.
    pub presence: Presence,
}

/// What was seen so far. A blocking lock, as nothing waits while it is held.
#[derive(Debug)]
struct Record {
    samples: VecDeque<Sample>,
    rooms: RoomWindow,
    /// At the last reading: the counters, and how far the log had come.
    counters: Counters,
    mark: Mark,
}

/// How the server is now.
#[derive(Debug)]
pub struct Now {
    /// When this was looked at.
    pub at: DateTime<Utc>,
    /// What clients are told of the stream.
    pub stream: Told,
    /// How far the server is behind MongoDB.
    pub lag: Duration,
    /// The newest five seconds; `None` in the first ones of a server.
    pub newest: Option<Sample>,
    /// Open sessions of each transport.
    pub connections: Vec<(&'static str, u64)>,
    /// Sessions that do not read what is there for them.
    pub readers_behind: u64,
    /// The rooms with most messages within the last quarter of an hour.
    pub rooms: Vec<BusyRoom>,
    /// Documents that break the contract, by the field at fault; only fields with any.
    pub invalid_documents: Vec<(&'static str, u64)>,
    /// All servers over this database, this one first.
    pub servers: Vec<KnownServer>,
}

/// A room in which much is written.
#[derive(Debug)]
pub struct BusyRoom {
    /// Which.
    pub room: RoomName,
    /// Messages within the last quarter of an hour.
    pub messages: u64,
    /// How many sessions follow it, on all servers.
    pub here: u64,
}

/// Looks at one server, and gives the task that must run for that. What other servers are told of this one goes to
/// `report`.
pub fn open(sources: VitalSources, report: watch::Sender<ServerReport>) -> (Vitals, VitalsKeeper) {
    let record = Record {
        samples: VecDeque::with_capacity(SAMPLES_MAX),
        rooms: RoomWindow::default(),
        counters: Counters::read(&sources.metrics),
        mark: sources.live.mark(),
    };
    // So that the first delivery is looked at, however soon it comes.
    sources.metrics.deliveries.begin_round();
    let vitals = Vitals(Arc::new(Shared { sources, record: Mutex::new(record) }));
    (vitals.clone(), VitalsKeeper { vitals, report })
}

impl Vitals {
    /// The metrics as text, with those of the moment.
    pub fn render_metrics(&self) -> String {
        let VitalSources { watcher, metrics, .. } = &self.0.sources;
        metrics.stream_lag_seconds.set(watcher.lag().as_secs_f64());
        metrics.stream_position_age_seconds.set(watcher.still_for().as_secs_f64());
        metrics.render()
    }

    /// Looks. Asks MongoDB about the other servers, if that was not asked within the last seconds.
    pub async fn now(&self) -> Now {
        let VitalSources { watcher, metrics, presence, .. } = &self.0.sources;
        let stream = *watcher.told().borrow();
        let (newest, busiest) = {
            let record = self.record();
            (record.samples.back().cloned(), record.rooms.busiest())
        };
        let names: Vec<RoomName> = busiest.iter().map(|(room, _)| room.clone()).collect();
        let here = presence.here(&names).await;
        let rooms = busiest.into_iter().zip(here).map(|((room, messages), here)| BusyRoom { room, messages, here });
        let invalid = Invalid::ALL.into_iter().map(Invalid::as_str).filter_map(|reason| {
            let count = metrics.invalid_documents.get(&ReasonLabels { reason })?.get();
            (count > 0).then_some((reason, count))
        });
        let (lag, connections) = (watcher.lag(), connections(metrics));
        let mut servers = presence.servers().await;
        if let Some(own) = servers.first_mut().filter(|server| server.is_this) {
            // What this one tells the others is some seconds old.
            own.report.stream = stream.as_str().into();
            own.report.lag_millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
            own.report.connections = connections.iter().map(|(_, count)| count).sum();
        }
        Now {
            at: Utc::now(),
            stream,
            lag,
            newest,
            connections,
            readers_behind: u64::try_from(metrics.readers_behind.get()).unwrap_or_default(),
            rooms: rooms.collect(),
            invalid_documents: invalid.collect(),
            servers,
        }
    }

    /// The last quarter of an hour, or what of it came after `after`; oldest first.
    pub fn samples(&self, after: Option<DateTime<Utc>>) -> Vec<Sample> {
        let record = self.record();
        record.samples.iter().filter(|sample| after.is_none_or(|after| sample.at > after)).cloned().collect()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the counters. Returns what happened since the last time.
    fn read(&self) -> Sample {
        let VitalSources { live, watcher, metrics, .. } = &self.0.sources;
        let mut record = self.record();
        let mark = std::mem::replace(&mut record.mark, live.mark());
        metrics.readers_behind.set(i64::try_from(live.readers_behind(mark)).unwrap_or(i64::MAX));
        metrics.deliveries.begin_round();
        let counters = Counters::read(metrics);
        let open = connections(metrics).into_iter().map(|(_, count)| count).sum();
        let sample = counters.sample(&record.counters, watcher.lag(), open);
        record.counters = counters;
        record.rooms.push(metrics.busy_rooms.take(), SAMPLES_MAX);
        remember(&mut record.samples, sample.clone());
        sample
    }
}

/// Reads the counters.
#[derive(Debug)]
pub struct VitalsKeeper {
    vitals: Vitals,
    report: watch::Sender<ServerReport>,
}

impl VitalsKeeper {
    /// Says under which name the other servers know this one.
    pub fn named(self, name: String) -> Self {
        self.report.send_modify(|report| report.name = name);
        self
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(SAMPLE_SECS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is at once, when there is nothing to read.
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let sample = self.vitals.read();
            let stream = self.vitals.0.sources.watcher.told().borrow().as_str();
            self.report.send_modify(|report| {
                report.stream = stream.into();
                report.lag_millis = u64::try_from(sample.lag.as_millis()).unwrap_or(u64::MAX);
                report.connections = sample.connections;
                report.deliveries_per_second = sample.deliveries_per_second;
            });
        }
    }
}
