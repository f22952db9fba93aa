//! Every setting: flag, variable, default and reason. No other file reads the environment.
//!
//! `docs/configuration.md` has the same as a table, which a test holds against this file.

mod contradictions;
mod shown;

use std::{num::NonZero, path::PathBuf, thread, time::Duration};

use clap::{ArgAction, Parser, builder::RangedU64ValueParser};

pub use shown::{effective, uri_for_others};

use crate::{
    base_path::BasePath,
    feed::LogLimits,
    listener::{DoorLimits, SenderHeader, TrustedProxy},
    mongo::{QueueLimits, SchemaOptions},
    origin::AllowedOrigin,
    rates::RateLimits,
    replay::ReplayLimits,
    telemetry::{DEFAULT_LOG, LogFilter, LogFormat},
};

/// Defaults that give way to a smaller bound around them: see [`Config::check`].
const PER_ADDRESS_MAX: usize = 20_000;
const REPLAY_BYTES_MAX: usize = 64 * 1024 * 1024;
const KEEP_ALIVE_SECS: u64 = 25;
/// The longest that `--keep-days` can say: MongoDB counts seconds in 31 bits.
const KEEP_DAYS_MAX: u64 = 24_855;

/// A bound of which nothing is nonsense.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// A setting that is there or not. A variable that is empty is not, as in files of variables.
fn is_set(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" | "y" => Ok(true),
        "" | "false" | "no" | "off" | "0" | "f" | "n" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// What the program takes by itself, with the driver's connections, the tables of rates, and what the allocator keeps.
const PROGRAM_BYTES_MAX: usize = 96 * 1024 * 1024;
/// What one connection can make the server hold at most: a message of 64 KiB of which the last byte does not come, in
/// memory that grew with it; as much that was read ahead; and an answer or a frame that is not taken. A session of
/// Socket.IO, instead of that ahead: 256 KiB of commands that wait, 64 KiB of attachments of which the last does not come, and
/// some 80 KiB of packets that are not taken.
const CONNECTION_BYTES_MAX: usize = 512 * 1024;

/// A realtime chat server driven by MongoDB change streams.
///
/// Each setting is a flag and an environment variable; the flag wins. MONGOD names the program for the embedded MongoDB.
#[derive(Debug, Clone, Parser)]
#[command(name = "corriente", version, about)]
pub struct Config {
    /// Where MongoDB is: a replica set or sharded cluster, 6.0 or newer. Unset: an embedded one with its files under
    /// DATA_DIR
    #[arg(long, env = "MONGODB_URI", hide_env_values = true)]
    pub mongodb_uri: Option<String>,

    /// The database. Unset: that of MONGODB_URI, else `corriente`
    #[arg(long, env = "DATABASE")]
    pub database: Option<String>,

    /// The collection of messages
    #[arg(long, env = "COLLECTION", default_value = "messages")]
    pub collection: String,

    /// A word of your choice, the same on all servers. Change it when MongoDB was restored from a backup: the cursors of
    /// clients are then of what no longer is, and each client loads its history anew
    #[arg(long, env = "EPOCH", default_value = "", hide_default_value = true)]
    pub epoch: String,

    /// The address to listen on, or a name of this machine. The default is reachable from this machine only, as nobody
    /// signs in
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// The port to listen on; 0 takes any free one
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,

    /// The path under which everything is offered, such as `/chat`, for a proxy that has other things at its root and
    /// passes paths on as they are. Unset: the root
    #[arg(long, env = "BASE_PATH", default_value = "", hide_default_value = true)]
    pub base_path: BasePath,

    /// Where the embedded MongoDB keeps its files. They survive a restart
    #[arg(long, env = "DATA_DIR", default_value = ".data")]
    pub data_dir: PathBuf,

    /// Write nothing: no messages over any transport, no indexes, no counts of who is here. A user of MongoDB with the
    /// role `read` is then enough
    #[arg(long, env = "READ_ONLY", action = ArgAction::Set, num_args = 0..=1, value_name = "true|false")]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = is_set)]
    pub read_only: bool,

    /// Let MongoDB delete messages that are older than so many days, with a TTL index. All servers over one collection
    /// must say the same. Unset: an index of an earlier setting stays, and the log says so
    #[arg(long, env = "KEEP_DAYS", value_parser = clap::value_parser!(u64).range(1..=KEEP_DAYS_MAX))]
    pub keep_days: Option<u64>,

    /// State the data contract as a validator on a collection that exists already. On one that the server makes it is
    /// always there
    #[arg(long, env = "VALIDATOR", action = ArgAction::Set, num_args = 0..=1, value_name = "true|false")]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = is_set)]
    pub validator: bool,

    /// Keep pre-images on a collection that exists already, so that a delete or a move says where a message was. On one
    /// that the server makes they are always kept
    #[arg(long, env = "PRE_IMAGES", action = ArgAction::Set, num_args = 0..=1, value_name = "true|false")]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = is_set)]
    pub pre_images: bool,

    /// An origin whose web pages may use this server beside its own, such as `https://app.example.org`; repeated, or
    /// separated by commas; `*` allows all. Pages of other origins can neither write nor open a WebSocket
    #[arg(long, env = "ALLOW_ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<AllowedOrigin>,

    /// The most open connections. Each takes a file descriptor and a few KB; lowered to what the system allows (ulimit -n)
    #[arg(long, env = "CONNECTIONS_MAX", default_value_t = 50_000, value_parser = at_least_one())]
    pub connections_max: usize,

    /// The most connections of one address (of one /64 network with IPv6), so that nobody takes all of them. A proxy in
    /// front of this server has one address for all of its clients
    #[arg(long, env = "CONNECTIONS_PER_ADDRESS_MAX", default_value_t = PER_ADDRESS_MAX, value_parser = at_least_one())]
    pub connections_per_address_max: usize,

    /// The most messages per second of one address (of one /64 network with IPv6), of which ten seconds' worth may come at
    /// once; more are refused with 429. 0 = no limit. An office behind one address never writes as much; it is a small part
    /// of what the server can store
    #[arg(long, env = "RATE_PER_ADDRESS", default_value_t = 1_000)]
    pub rate_per_address: u32,

    /// The most messages per second of one sender at one address, in the same way. 0 = no limit. People write less, and
    /// what a program sends in their name fits in a burst
    #[arg(long, env = "RATE_PER_SENDER", default_value_t = 200)]
    pub rate_per_sender: u32,

    /// The most requests, and frames over sockets, per second of one address, in the same way. 0 = no limit. A page is
    /// about fifteen requests, of which only those that read the database count
    #[arg(long, env = "RATE_REQUESTS_PER_ADDRESS", default_value_t = 2_000)]
    pub rate_requests_per_address: u32,

    /// Proxies in front of this server, whose X-Forwarded-For or Forwarded is believed: addresses and networks such as
    /// 10.0.0.0/8, repeated or separated by commas; without a value, or `true`: those on this machine and in private
    /// networks. Unset: nobody is believed, and a proxy's clients share what is meant for one address
    #[arg(long, env = "TRUST_PROXY", value_delimiter = ',', num_args = 0..=1, default_missing_value = "true")]
    pub trust_proxy: Vec<TrustedProxy>,

    /// The header in which the proxies of TRUST_PROXY say who has signed in, such as X-Auth-Request-Preferred-Username: every
    /// message then has that name as its sender, and who is not signed in can only read. Unset: nobody signs in, and a
    /// sender is a claim
    #[arg(long, env = "SENDER_HEADER", default_value = "", hide_default_value = true)]
    pub sender_header: SenderHeader,

    /// How many seconds a client may take to send the headers of a request, and how long a connection that has no
    /// request is kept. A phone on a bad line takes a few
    #[arg(long, env = "HEADER_SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub header_secs: u64,

    /// How many seconds a client may take to send the body of a request to the API, which has 64 KiB at most
    #[arg(long, env = "BODY_SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub body_secs: u64,

    /// The most memory of the bodies of requests, in bytes: so much is held for clients that send slowly
    #[arg(long, env = "BODIES_BYTES_MAX", default_value_t = 256 * 1024 * 1024, value_parser = at_least_one())]
    pub bodies_bytes_max: usize,

    /// After how many seconds a client for which nothing happens is told its place: less than proxies in front wait, which is
    /// a minute for most. At most 30, as clients take 65 s of silence for a dead connection, and half of SILENCE_SECS, as
    /// this asks for a sign of life
    #[arg(long, env = "KEEP_ALIVE_SECS", default_value_t = KEEP_ALIVE_SECS, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub keep_alive_secs: u64,

    /// After how many seconds without a byte that moves a connection is closed: its client is gone, or does not read
    #[arg(long, env = "SILENCE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub silence_secs: u64,

    /// The most memory of pages and other answers that their clients have not taken yet, in bytes; when slow clients fill
    /// it, more are refused with 503
    #[arg(long, env = "ANSWERS_BYTES_MAX", default_value_t = 256 * 1024 * 1024, value_parser = at_least_one())]
    pub answers_bytes_max: usize,

    /// The most messages that may wait for MongoDB; more are refused with 503 until it has caught up. Half a second of what
    /// it stores on two cores
    #[arg(long, env = "INSERTS_WAITING_MAX", default_value_t = 10_000, value_parser = at_least_one())]
    pub inserts_waiting_max: usize,

    /// The most memory for them, in bytes. The largest message takes some 17,000
    #[arg(long, env = "INSERTS_WAITING_BYTES_MAX", default_value_t = 32 * 1024 * 1024, value_parser = at_least_one())]
    pub inserts_waiting_bytes_max: usize,

    /// The most events kept in memory for clients that come back: at 100 a second a quarter of an hour
    #[arg(long, env = "LOG_ENTRIES_MAX", default_value_t = 100_000, value_parser = at_least_one())]
    pub log_entries_max: usize,

    /// The most memory for them, in bytes
    #[arg(long, env = "LOG_BYTES_MAX", default_value_t = 128 * 1024 * 1024, value_parser = at_least_one())]
    pub log_bytes_max: usize,

    /// How many replays of what is older than that are read from MongoDB at once. Each reads the whole oplog from its place
    /// on, and slows down the streams of all servers
    #[arg(long, env = "REPLAYS_MAX", default_value_t = 2, value_parser = at_least_one())]
    pub replays_max: usize,

    /// The most events of one replay; a client that missed more is told to reload, which is cheaper for it too
    #[arg(long, env = "REPLAY_EVENTS_MAX", default_value_t = 100_000, value_parser = at_least_one())]
    pub replay_events_max: usize,

    /// The most memory of one replay, in bytes of messages
    #[arg(long, env = "REPLAY_BYTES_MAX", default_value_t = REPLAY_BYTES_MAX, value_parser = at_least_one())]
    pub replay_bytes_max: usize,

    /// The most memory of all replays that clients are reading, in bytes
    #[arg(long, env = "REPLAYS_KEPT_BYTES_MAX", default_value_t = 256 * 1024 * 1024, value_parser = at_least_one())]
    pub replays_kept_bytes_max: usize,

    /// The most topics that one connection can follow. The page follows 50 rooms at most, or as many as this leaves beside
    /// its own place and an inbox; each costs memory
    #[arg(long, env = "TOPICS_MAX", default_value_t = 100, value_parser = at_least_one())]
    pub topics_max: usize,

    /// Over how many seconds the connections of a busy server are closed when it stops, 200 a second if they are fewer, so
    /// that their clients do not come back all at once
    #[arg(long, env = "DRAIN_SECS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub drain_secs: u64,

    /// How many threads the server runs on. Unset: one for each processor, and one less beside the embedded MongoDB, which
    /// has that processor for itself
    #[arg(long, env = "WORKER_THREADS", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    pub worker_threads: Option<usize>,

    /// Which log lines are written: levels (`error`, `warn`, `info`, `debug`, `trace`, `off`), also by part, such as
    /// `warn,corriente=debug`. With `corriente=debug` every request is a line
    #[arg(long, env = "RUST_LOG", default_value = DEFAULT_LOG)]
    pub rust_log: LogFilter,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

impl Config {
    /// The URI of a MongoDB that runs already. One that is empty is none, as in files of variables.
    pub fn given_uri(&self) -> Option<&str> {
        self.mongodb_uri.as_deref().filter(|uri| !uri.is_empty())
    }

    /// The database, unless the URI is to say it.
    pub fn given_database(&self) -> Option<&str> {
        self.database.as_deref().filter(|database| !database.is_empty())
    }

    /// How many threads the server runs on. On two processors everything was faster with one thread beside the embedded
    /// MongoDB than with two: `docs/performance.md` has the numbers.
    pub fn worker_threads(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let left_to_mongodb = usize::from(self.given_uri().is_none());
        self.worker_threads.unwrap_or_else(|| processors.saturating_sub(left_to_mongodb).max(1))
    }

    /// See [`DoorLimits`].
    pub fn door_limits(&self) -> DoorLimits {
        DoorLimits {
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_of_address_max(),
            header_time_max: Duration::from_secs(self.header_secs),
            silence_max: Duration::from_secs(self.silence_secs),
            answers_bytes_max: self.answers_bytes_max,
            trusted_proxies: self.trust_proxy.as_slice().into(),
            sender_header: self.sender_header.clone(),
            bodies_bytes_max: self.bodies_bytes_max,
        }
    }

    /// The resident memory that the process stays below when all limits are reached at once, in bytes: `docs/limits.md` says
    /// what each part of it is.
    pub fn memory_bytes_max(&self) -> usize {
        let parts = [
            PROGRAM_BYTES_MAX,
            self.log_bytes_max,
            self.replays_kept_bytes_max,
            // As they are read, and as the entries of a log with their encodings.
            self.replays_max.saturating_mul(self.replay_bytes_max).saturating_mul(5),
            // The message, its document, and the command that it leaves in.
            self.inserts_waiting_bytes_max.saturating_mul(3),
            self.bodies_bytes_max,
            self.answers_bytes_max,
            self.connections_max.saturating_mul(CONNECTION_BYTES_MAX),
        ];
        parts.into_iter().fold(0, usize::saturating_add)
    }

    /// See [`RateLimits`].
    pub fn rate_limits(&self) -> RateLimits {
        RateLimits {
            messages_per_address: self.rate_per_address,
            messages_per_sender: self.rate_per_sender,
            requests_per_address: self.rate_requests_per_address,
        }
    }

    /// See [`QueueLimits`].
    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits { documents_max: self.inserts_waiting_max, bytes_max: self.inserts_waiting_bytes_max }
    }

    /// See [`LogLimits`].
    pub fn log_limits(&self) -> LogLimits {
        LogLimits { entries_max: self.log_entries_max, bytes_max: self.log_bytes_max }
    }

    /// See [`ReplayLimits`].
    pub fn replay_limits(&self) -> ReplayLimits {
        ReplayLimits {
            replays_max: self.replays_max,
            events_max: self.replay_events_max,
            bytes_max: self.bytes_of_replay_max(),
            kept_bytes_max: self.replays_kept_bytes_max,
        }
    }

    /// See [`SchemaOptions`].
    pub fn schema_options(&self) -> SchemaOptions {
        SchemaOptions {
            read_only: self.read_only,
            validator: self.validator,
            pre_images: self.pre_images,
            keep_days: self.keep_days,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_is_set_or_not_takes_a_value_and_needs_none() {
        let read = |flags: &[&str]| Config::try_parse_from(["corriente"].iter().chain(flags));
        for (flags, expected) in [
            (&[][..], [false, false]),
            (&["--read-only"], [true, false]),
            (&["--read-only", "true"], [true, false]),
            (&["--read-only=yes", "--validator", "no"], [true, false]),
            (&["--read-only", "--validator", "1"], [true, true]),
            (&["--read-only", "false", "--validator"], [false, true]),
            (&["--read-only="], [false, false]),
        ] {
            let config = read(flags).unwrap_or_else(|error| panic!("{flags:?}: {error}"));
            assert_eq!([config.read_only, config.validator], expected, "{flags:?}");
        }
        let error = read(&["--read-only", "perhaps"]).unwrap_err().to_string();
        assert!(error.contains("perhaps") && error.contains("write true or false"), "{error}");
    }

    #[test]
    fn an_embedded_mongodb_has_a_processor_for_itself() {
        let threads = |flags: &[&str]| Config::parse_from(["corriente"].iter().chain(flags)).worker_threads();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        assert_eq!(threads(&["--mongodb-uri", "mongodb://db.example/?replicaSet=rs0"]), processors);
        assert_eq!(threads(&["--mongodb-uri", ""]), processors.saturating_sub(1).max(1));
        assert_eq!(threads(&["--worker-threads", "7"]), 7);
    }
}
