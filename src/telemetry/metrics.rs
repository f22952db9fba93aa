//! Every number of a server. What each one means, and when to act, is in `docs/metrics.md`.

use std::{
    fmt::Write,
    hash::Hash,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::{
    BusyRooms, Deliveries, EventLabels, InsertLabels, OutcomeLabels, ReasonLabels, RequestLabels, RouteLabels,
    TRANSPORTS, TransportLabels,
};

/// Upper bounds of the buckets of `corriente_insert_batch_size`.
const INSERT_BATCH_SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
/// Upper bounds of the buckets of `corriente_http_request_duration_seconds`: an insert takes some milliseconds, and five
/// seconds at most.
const REQUEST_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

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
    /// How far this server is behind MongoDB. Set when somebody asks.
    pub stream_lag_seconds: Gauge<f64, AtomicU64>,
    /// How long the stream's position has stood still. Set when somebody asks.
    pub stream_position_age_seconds: Gauge<f64, AtomicU64>,
    /// Times that the change stream was opened again, by reason.
    pub stream_reopens: Family<ReasonLabels, Counter>,
    /// Documents that break the contract, by the rule that they break.
    pub invalid_documents: Family<ReasonLabels, Counter>,
    /// What went out to clients, and how long that took.
    pub deliveries: Deliveries,
    /// New messages by room, for the status page.
    pub busy_rooms: BusyRooms,
    /// Open sessions by transport.
    pub connections: Family<TransportLabels, Gauge>,
    /// Sessions that have not read what is there for them. Set when somebody asks.
    pub readers_behind: Gauge,
    /// Sessions that were told to reload.
    pub resets: Family<ReasonLabels, Counter>,
    /// Requests, messages and connections that were too many, by the bound that they were over.
    pub refusals: Family<ReasonLabels, Counter>,
    /// Stretches of the past that were asked for, by how that ended.
    pub replays: Family<OutcomeLabels, Counter>,
    /// Entries of the log.
    pub log_entries: Gauge,
    /// Bytes of the log, encodings included.
    pub log_bytes: Gauge<u64, AtomicU64>,
    http_requests: Family<RequestLabels, Counter>,
    http_request_duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            inserts: Family::default(),
            insert_batch_size: Histogram::new(INSERT_BATCH_SIZES),
            events: Family::default(),
            stream_lag_seconds: Gauge::default(),
            stream_position_age_seconds: Gauge::default(),
            stream_reopens: Family::default(),
            invalid_documents: Family::default(),
            deliveries: Deliveries::default(),
            busy_rooms: BusyRooms::default(),
            connections: Family::default(),
            readers_behind: Gauge::default(),
            resets: Family::default(),
            refusals: Family::default(),
            replays: Family::default(),
            log_entries: Gauge::default(),
            log_bytes: Gauge::default(),
            http_requests: Family::default(),
            http_request_duration: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
        };
        for transport in TRANSPORTS {
            let _ = metrics.connections.get_or_create(&TransportLabels { transport });
        }
        Self { registry: Arc::new(metrics.registry()), ..metrics }
    }
}

impl Metrics {
    /// Each under its name, with what it means.
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("corriente");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this server", version);
        registry.register("inserts", "Messages sent through this server, by source and outcome", self.inserts.clone());
        registry.register(
            "insert_batch_size",
            "Messages that left for MongoDB together",
            self.insert_batch_size.clone(),
        );
        registry.register("events", "Changes received from MongoDB, whoever made them, by kind", self.events.clone());
        registry.register_with_unit(
            "stream_lag",
            "How far this server is behind MongoDB: the age of the newest change when it came, and how long MongoDB has not answered since if it does not",
            Unit::Seconds,
            self.stream_lag_seconds.clone(),
        );
        registry.register_with_unit(
            "stream_position_age",
            "How long the position of the change stream has stood still; MongoDB itself moves it every 10 seconds",
            Unit::Seconds,
            self.stream_position_age_seconds.clone(),
        );
        registry.register(
            "stream_reopens",
            "Times the change stream was opened again, by reason",
            self.stream_reopens.clone(),
        );
        registry.register(
            "invalid_documents",
            "Documents that break the data contract and are shown to nobody, by the field at fault",
            self.invalid_documents.clone(),
        );
        registry.register("deliveries", "Changes handed to the connections of clients", self.deliveries.counter());
        registry.register_with_unit(
            "delivery_delay",
            "From the time that MongoDB gives a change until it is handed to a client's connection: a sample of one delivery in 16, of clients that are not catching up. The clocks of MongoDB and of this machine must agree",
            Unit::Seconds,
            self.deliveries.histogram(),
        );
        registry.register("connections", "Open sessions, by transport", self.connections.clone());
        registry.register(
            "readers_behind",
            "Sessions that have not read for five seconds or more what is there for them",
            self.readers_behind.clone(),
        );
        registry.register("resets", "Sessions told to reload their history, by reason", self.resets.clone());
        registry.register(
            "refusals",
            "Requests, messages and connections that were too many, by the bound that they were over",
            self.refusals.clone(),
        );
        registry.register(
            "replays",
            "Stretches of the past read again from MongoDB for clients that come back, by outcome",
            self.replays.clone(),
        );
        registry.register("log_entries", "Changes kept in memory", self.log_entries.clone());
        registry.register_with_unit(
            "log",
            "Memory reserved for them: what they take when each has gone out in every form it can have, estimated from above",
            Unit::Bytes,
            self.log_bytes.clone(),
        );
        registry.register(
            "http_requests",
            "Requests answered, by route pattern, method and status; a WebSocket is 101",
            self.http_requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Until the headers of the answer were ready, by route pattern and method",
            Unit::Seconds,
            self.http_request_duration.clone(),
        );
        registry
    }

    /// All of them as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a String can not fail; an answer that ends early is still marked as such by its missing EOF.
            let _ = writeln!(text, "# encoding failed");
        }
        text
    }

    /// Counts an answer. `route` is a pattern of ours, never a path.
    pub fn count_request(&self, route: String, method: &'static str, status: u16, duration: Duration) {
        let request = RequestLabels { route, method, status };
        self.http_requests.get_or_create(&request).inc();
        let RequestLabels { route, method, .. } = request;
        self.http_request_duration.get_or_create(&RouteLabels { route, method }).observe(duration.as_secs_f64());
    }
}

/// Shows counters from the start, at 0: what is first seen at 1 looks to Prometheus as if nothing had happened.
pub fn show_from_start<L>(family: &Family<L, Counter>, labels: impl IntoIterator<Item = L>)
where
    L: Clone + Eq + Hash + EncodeLabelSet + Send + Sync + 'static,
{
    for labels in labels {
        let _ = family.get_or_create(&labels);
    }
}

/// Counts one while it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one session over `transport`, one of [`TRANSPORTS`].
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
