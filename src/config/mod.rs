//! Every setting: flag, variable, default and reason. No other file reads the environment.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Parser, builder::FalseyValueParser};

use crate::{
    feed::LogLimits,
    listener::DoorLimits,
    mongo::{QueueLimits, SchemaOptions},
    origin::AllowedOrigin,
    replay::ReplayLimits,
    telemetry::LogFormat,
};

/// A realtime chat server driven by MongoDB change streams.
#[derive(Debug, Clone, Parser)]
#[command(name = "corriente", version, about, long_about = None)]
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
    #[arg(long, env = "EPOCH", default_value = "")]
    pub epoch: String,

    /// The address to listen on. The default is reachable from this machine only, as nobody signs in
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// The port to listen on; 0 takes any free one
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,

    /// Where the embedded MongoDB keeps its files. They survive a restart
    #[arg(long, env = "DATA_DIR", default_value = ".data")]
    pub data_dir: PathBuf,

    /// State the data contract as a validator on a collection that exists already. On one that the server makes it is
    /// always there
    #[arg(long, env = "VALIDATOR", value_parser = FalseyValueParser::new())]
    pub validator: bool,

    /// Keep pre-images on a collection that exists already, so that a delete or a move says where a message was. On one
    /// that the server makes they are always kept
    #[arg(long, env = "PRE_IMAGES", value_parser = FalseyValueParser::new())]
    pub pre_images: bool,

    /// An origin whose web pages may use this server beside its own, such as `https://app.example.org`; repeated, or
    /// separated by commas; `*` allows all. Pages of other origins can neither write nor open a WebSocket
    #[arg(long, env = "ALLOW_ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<AllowedOrigin>,

    /// The most open connections
    #[arg(long, env = "CONNECTIONS_MAX", default_value_t = 50_000)]
    pub connections_max: usize,

    /// The most of one address (of one /64 network with IPv6). A proxy in front of this server has one address for all
    /// of its clients
    #[arg(long, env = "CONNECTIONS_PER_ADDRESS_MAX", default_value_t = 20_000)]
    pub connections_per_address_max: usize,

    /// How many seconds a client may take to send the headers of a request, and how long a connection that has no
    /// request is kept
    #[arg(long, env = "HEADER_SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub header_secs: u64,

    /// How many seconds a client may take to send the body of a request
    #[arg(long, env = "BODY_SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub body_secs: u64,

    /// After how many seconds without a byte that moves a connection is closed
    #[arg(long, env = "SILENCE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub silence_secs: u64,

    /// The most memory of pages and other answers that their clients have not taken yet, in bytes; when slow clients fill
    /// it, more are refused with 503
    #[arg(long, env = "ANSWERS_BYTES_MAX", default_value_t = 256 * 1024 * 1024)]
    pub answers_bytes_max: usize,

    /// The most messages that may wait for MongoDB; more are refused with 503 until it has caught up
    #[arg(long, env = "INSERTS_WAITING_MAX", default_value_t = 10_000)]
    pub inserts_waiting_max: usize,

    /// The most memory for them, in bytes
    #[arg(long, env = "INSERTS_WAITING_BYTES_MAX", default_value_t = 32 * 1024 * 1024)]
    pub inserts_waiting_bytes_max: usize,

    /// The most events kept in memory for clients that come back
    #[arg(long, env = "LOG_ENTRIES_MAX", default_value_t = 100_000)]
    pub log_entries_max: usize,

    /// The most memory for them, in bytes
    #[arg(long, env = "LOG_BYTES_MAX", default_value_t = 128 * 1024 * 1024)]
    pub log_bytes_max: usize,

    /// How many replays of what is older than that are read from MongoDB at once
    #[arg(long, env = "REPLAYS_MAX", default_value_t = 2)]
    pub replays_max: usize,

    /// The most events of one replay; a client that missed more is told to reload
    #[arg(long, env = "REPLAY_EVENTS_MAX", default_value_t = 100_000)]
    pub replay_events_max: usize,

    /// The most memory of one replay, in bytes of messages
    #[arg(long, env = "REPLAY_BYTES_MAX", default_value_t = 64 * 1024 * 1024)]
    pub replay_bytes_max: usize,

    /// The most memory of all replays that clients are reading, in bytes
    #[arg(long, env = "REPLAYS_KEPT_BYTES_MAX", default_value_t = 256 * 1024 * 1024)]
    pub replays_kept_bytes_max: usize,

    /// The most topics that one connection can follow
    #[arg(long, env = "TOPICS_MAX", default_value_t = 100)]
    pub topics_max: usize,

    /// Over how many seconds the connections of a busy server are closed when it stops, so that their clients do not come
    /// back all at once
    #[arg(long, env = "DRAIN_SECS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub drain_secs: u64,

    /// How log lines look; RUST_LOG selects them
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

impl Config {
    /// See [`DoorLimits`].
    pub fn door_limits(&self) -> DoorLimits {
        DoorLimits {
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            header_time_max: Duration::from_secs(self.header_secs),
            silence_max: Duration::from_secs(self.silence_secs),
            answers_bytes_max: self.answers_bytes_max,
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
            bytes_max: self.replay_bytes_max,
            kept_bytes_max: self.replays_kept_bytes_max,
        }
    }

    /// See [`SchemaOptions`].
    pub fn schema_options(&self) -> SchemaOptions {
        SchemaOptions { validator: self.validator, pre_images: self.pre_images }
    }
}
