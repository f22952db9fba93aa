//! Logs and metrics. Metric names and labels are part of the interface; no label holds what users write.

use std::{
    fmt::Write,
    io::{IsTerminal, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Sends log lines to stderr: stdout is for the two lines that programs read. `RUST_LOG` selects them.
pub fn start_logging(format: LogFormat) {
    // The driver and Poem are quiet by default: what goes wrong there is logged once, where we handle it.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,corriente=info"));
    let lines = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    // A second call (several servers in one test process) keeps the first one's subscriber.
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// Every metric of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Inserts by where they came from and how they ended.
    pub inserts: Family<InsertLabels, Counter>,
    /// Messages that were inserted together.
    pub insert_batch_size: Histogram,
    /// Events of the change stream by kind.
    pub events: Family<EventLabels, Counter>,
    /// Documents that break the contract, by the rule that they break.
    pub invalid_documents: Family<ReasonLabels, Counter>,
    /// Times that the change stream was opened again, by reason.
    pub stream_reopens: Family<ReasonLabels, Counter>,
    /// Stretches of the past that were asked for, by how that ended.
    pub replays: Family<OutcomeLabels, Counter>,
    /// Requests, messages and connections that were too many, by the bound that they were over.
    pub refusals: Family<ReasonLabels, Counter>,
    /// Sessions that were told to reload.
    pub resets: Family<ReasonLabels, Counter>,
    /// Open sessions by transport.
    pub connections: Family<TransportLabels, Gauge>,
    /// Entries of the log.
    pub log_entries: Gauge,
    /// Bytes of the log, encodings included.
    pub log_bytes: Gauge<u64, AtomicU64>,
}

/// Upper bounds of the buckets of `corriente_insert_batch_size`.
const INSERT_BATCH_SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];

/// Labels of `corriente_inserts_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InsertLabels {
    /// `rest`, `form` or `websocket`.
    pub source: &'static str,
    /// `created`, `repeated`, `conflict`, `refused`, `overloaded` or `unknown`.
    pub outcome: &'static str,
}

/// Labels of `corriente_events_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// `insert`, `edit`, `delete` or `invalid`.
    pub kind: &'static str,
}

/// A reason, from a fixed list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One word or two.
    pub reason: &'static str,
}

/// Labels of `corriente_replays_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `filled`, `lost`, `too much`, `slow`, `busy` or `failed`.
    pub outcome: &'static str,
}

/// Labels of `corriente_connections`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransportLabels {
    /// `websocket`, `sse`, `long-poll` or `socket.io`.
    pub transport: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("corriente");
        let inserts = Family::default();
        let insert_batch_size = Histogram::new(INSERT_BATCH_SIZES);
        let events = Family::default();
        let invalid_documents = Family::default();
        let stream_reopens = Family::default();
        let replays = Family::default();
        let refusals = Family::default();
        let resets = Family::default();
        let connections = Family::default();
        let log_entries = Gauge::default();
        let log_bytes = Gauge::default();
        registry.register("inserts", "Messages sent through this server, by outcome", inserts.clone());
        registry.register("insert_batch_size", "Messages that left for MongoDB together", insert_batch_size.clone());
        registry.register("events", "Events received from the change stream", events.clone());
        registry.register(
            "invalid_documents",
            "Documents that break the data contract, by field",
            invalid_documents.clone(),
        );
        registry.register("stream_reopens", "Times the change stream was opened again", stream_reopens.clone());
        registry.register("replays", "Stretches of the past read again for clients, by outcome", replays.clone());
        registry.register("refusals", "Requests, messages and connections that were too many", refusals.clone());
        registry.register("resets", "Sessions told to reload their history", resets.clone());
        registry.register("connections", "Open sessions", connections.clone());
        registry.register("log_entries", "Entries of the log", log_entries.clone());
        registry.register_with_unit("log", "Memory of the log", Unit::Bytes, log_bytes.clone());
        Self {
            registry: Arc::new(registry),
            inserts,
            insert_batch_size,
            events,
            invalid_documents,
            stream_reopens,
            replays,
            refusals,
            resets,
            connections,
            log_entries,
            log_bytes,
        }
    }
}

impl Metrics {
    /// All of them as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a String can not fail; an answer that ends early is still marked as such by its missing EOF.
            let _ = writeln!(text, "# encoding failed");
        }
        text
    }
}

/// Counts one while it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one session over `transport`.
    pub fn connection(metrics: &Metrics, transport: &'static str) -> Self {
        let gauge = metrics.connections.get_or_create(&TransportLabels { transport }).clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Lets a line through at the 1st, 2nd, 4th, 8th... time: a storm of one kind stays readable and is never silent.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// How often this has happened, if that is worth a line now.
    pub fn count(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}
