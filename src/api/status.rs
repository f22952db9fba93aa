//! `/api/status`

use chrono::{DateTime, Utc};
use poem::http::Uri;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Query, payload::Json};

use super::{Section, answers::QueryFailure, check_query, field};
use crate::{
    message::date_text,
    presence::KnownServer,
    problem::Problem,
    vitals::{BusyRoom, SAMPLE_SECS, Sample, Vitals},
};

/// The handlers of `/api/status`.
pub struct StatusApi(pub(super) Vitals);

#[OpenApi(prefix_path = "/api", tag = "Section::Operation")]
impl StatusApi {
    /// Look how the server is
    ///
    /// Now, and over the last 15 minutes: what the page `/status` shows. Rooms are named, people and direct messages are
    /// not. For monitoring there are `/metrics`, and `/readyz` for load balancers.
    #[oai(path = "/status", method = "get", operation_id = "getStatus")]
    async fn status(
        &self,
        /// Only samples that are newer than this time, the `at` of one that is known. RFC 3339.
        after: Query<Option<String>>,
        uri: &Uri,
    ) -> Result<StatusAnswer, QueryFailure> {
        check_query(uri, &["after"]).map_err(Problem::invalid)?;
        let after = after.0.map(|text| DateTime::parse_from_rfc3339(&text)).transpose();
        let after = after.map_err(|_| Problem::invalid(field("after", "is no time in the form of RFC 3339")))?;
        let now = self.0.now().await;
        let samples = self.0.samples(after.map(|after| after.with_timezone(&Utc)));
        let newest = now.newest.as_ref();
        Ok(StatusAnswer::Status(Json(StatusBody {
            at: date_text(&now.at),
            stream: now.stream.as_str().into(),
            lag_seconds: now.lag.as_secs_f64(),
            messages_per_second: newest.map_or(0.0, |sample| sample.messages_per_second),
            deliveries_per_second: newest.map_or(0.0, |sample| sample.deliveries_per_second),
            connections: now.connections.iter().map(|(name, count)| of_name(name, *count)).collect(),
            readers_behind: now.readers_behind,
            rooms: now.rooms.iter().map(Into::into).collect(),
            invalid_documents: now.invalid_documents.iter().map(|(name, count)| of_name(name, *count)).collect(),
            servers: now.servers.iter().map(Into::into).collect(),
            sample_seconds: SAMPLE_SECS,
            samples: samples.iter().map(Into::into).collect(),
        })))
    }
}

/// How the server is.
#[derive(ApiResponse)]
enum StatusAnswer {
    /// Now, and over the last 15 minutes.
    #[oai(status = 200)]
    Status(Json<StatusBody>),
}

/// How the server is.
#[derive(Debug, Object)]
#[oai(rename = "Status")]
struct StatusBody {
    /// When this was looked at. RFC 3339, UTC.
    at: String,
    /// `live`; `catching up`: the server has lost sight of MongoDB; `stale`: MongoDB answers, but stands still.
    stream: String,
    /// How far this server is behind MongoDB.
    lag_seconds: f64,
    /// New messages, whoever wrote them, within the newest sample.
    messages_per_second: f64,
    /// Changes handed to the connections of clients, within the newest sample.
    deliveries_per_second: f64,
    /// Open sessions by transport.
    connections: Vec<CountBody>,
    /// Sessions that have not read for five seconds or more what is there for them.
    readers_behind: u64,
    /// The ten rooms with most messages within the last 15 minutes.
    rooms: Vec<BusyRoomBody>,
    /// Documents that break the data contract and are shown to nobody, by the field at fault, since the server started.
    invalid_documents: Vec<CountBody>,
    /// All servers over this database; this one first.
    servers: Vec<ServerBody>,
    /// What one sample stands for.
    sample_seconds: u64,
    /// Oldest first.
    samples: Vec<SampleBody>,
}

/// How many of one kind.
#[derive(Debug, Object)]
#[oai(rename = "Count")]
struct CountBody {
    /// Which kind.
    name: String,
    /// How many.
    count: u64,
}

fn of_name(name: &str, count: u64) -> CountBody {
    CountBody { name: name.into(), count }
}

/// A room in which much is written.
#[derive(Debug, Object)]
#[oai(rename = "BusyRoom")]
struct BusyRoomBody {
    /// Its name.
    room: String,
    /// Messages within the last 15 minutes.
    messages: u64,
    /// How many sessions follow it, on all servers.
    here: u64,
}

impl From<&BusyRoom> for BusyRoomBody {
    fn from(BusyRoom { room, messages, here }: &BusyRoom) -> Self {
        Self { room: room.to_string(), messages: *messages, here: *here }
    }
}

/// A server over the same database.
#[derive(Debug, Object)]
#[oai(rename = "Server")]
struct ServerBody {
    /// Its machine and port.
    name: String,
    /// The version of the program.
    version: String,
    /// Since when it runs. RFC 3339, UTC.
    started_at: String,
    /// As `stream` of this one.
    stream: String,
    /// How far it is behind MongoDB.
    lag_seconds: f64,
    /// Its open sessions.
    connections: u64,
    /// Changes that it hands to connections.
    deliveries_per_second: f64,
    /// How many seconds ago it said so; others are heard of every 20 seconds at least.
    said_seconds_ago: u64,
    /// It is the one that answers here.
    is_this: bool,
}

impl From<&KnownServer> for ServerBody {
    fn from(KnownServer { report, said_secs_ago, is_this }: &KnownServer) -> Self {
        Self {
            name: report.name.clone(),
            version: report.version.clone(),
            started_at: date_text(&report.started_at),
            stream: report.stream.clone(),
            lag_seconds: report.lag_millis as f64 / 1_000.0,
            connections: report.connections,
            deliveries_per_second: report.deliveries_per_second,
            said_seconds_ago: *said_secs_ago,
            is_this: *is_this,
        }
    }
}

/// Five seconds of the server's life.
#[derive(Debug, Object)]
#[oai(rename = "Sample", skip_serializing_if_is_none)]
struct SampleBody {
    /// When they ended. RFC 3339, UTC.
    at: String,
    /// How far the server was behind MongoDB then.
    lag_seconds: f64,
    /// From MongoDB to the client's connection: half of the deliveries took less. Absent: nothing was delivered.
    delay_median_seconds: Option<f64>,
    /// 99 of 100 took less.
    delay_p99_seconds: Option<f64>,
    /// New messages, whoever wrote them.
    messages_per_second: f64,
    /// Changes handed to the connections of clients.
    deliveries_per_second: f64,
    /// Sessions that were open then.
    connections: u64,
}

impl From<&Sample> for SampleBody {
    fn from(sample: &Sample) -> Self {
        Self {
            at: date_text(&sample.at),
            lag_seconds: sample.lag.as_secs_f64(),
            delay_median_seconds: sample.delay_median.map(|delay| delay.as_secs_f64()),
            delay_p99_seconds: sample.delay_p99.map(|delay| delay.as_secs_f64()),
            messages_per_second: sample.messages_per_second,
            deliveries_per_second: sample.deliveries_per_second,
            connections: sample.connections,
        }
    }
}
