//! What can be asked for on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{scenario::Scenario, stamp::STAMP_BYTES};

/// Measures a Corriente server: delays, throughput, and what they cost
///
/// Without --url it starts the release build of this project on a MongoDB of its own, in a temporary directory, and stops
/// both at the end. Writers, server and readers must be on one machine, as delays are differences of its clock.
///
/// An open loop (--rate NUMBER) counts each delay from when a message was meant to be sent, so a server that stands still
/// can not hide it. A closed loop (--rate max) sends as fast as answers come and the slowest reader follows.
#[derive(Debug, Parser)]
#[command(name = "load", version, args_conflicts_with_subcommands = true, max_term_width = 110)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub target: Target,

    #[command(flatten)]
    pub plan: Plan,

    /// Measure a row of the table in docs/performance.md instead: flags of load that it fixes are ignored
    #[arg(long, value_enum)]
    pub scenario: Option<Scenario>,

    /// How many times to measure; medians are told
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub runs: u32,

    /// Threads of the readers. More than one takes processors away from a server on the same small machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,

    /// Do not judge a scenario by the goals of Corriente
    #[arg(long)]
    pub no_goals: bool,

    /// Write everything that was measured into this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Draw plots (SVG) out of files that --json has written
    Plot {
        /// The files
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// The directory for the plots
        #[arg(long, default_value = "docs/img")]
        out: PathBuf,
    },
}

/// Which server.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// A server that runs already, such as http://127.0.0.1:3000
    #[arg(long)]
    pub url: Option<String>,

    /// The process of that server, to count its processor time and memory
    #[arg(long, requires = "url", value_name = "PID")]
    pub server_pid: Option<u32>,

    /// Where MongoDB is, for writers that go past the server; unset: where the server that was started says
    #[arg(long)]
    pub mongodb_uri: Option<String>,

    /// What to call that server in what is told; unset: its URL
    #[arg(long, requires = "url")]
    pub name: Option<String>,

    /// One more argument for the server that is started, such as --server-arg=--log-entries-max=1000; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub server_arg: Vec<String>,

    /// Where messages are posted; /messages at the peer in benches/peer-node
    #[arg(long, default_value = "/api/messages", value_name = "PATH")]
    pub post_path: String,

    /// The database that holds the collection `messages`, for writers that go past the server
    #[arg(long, default_value = "corriente")]
    pub database: String,
}

/// What to do to it.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Plan {
    /// Connections that read
    #[arg(long, default_value_t = 100)]
    pub readers: usize,

    /// How they read
    #[arg(long, value_enum, default_value = "websocket")]
    pub transport: Transport,

    /// Connections besides that join and then never read
    #[arg(long, default_value_t = 0)]
    pub stuck: usize,

    /// Connections besides that follow a room in which nothing happens; their memory is told
    #[arg(long, default_value_t = 0)]
    pub idle: usize,

    /// Connections opened per second
    #[arg(long, default_value_t = 2_000.0, value_parser = positive)]
    pub connect_rate: f64,

    /// How messages are written; `none` writes nothing
    #[arg(long, value_enum, default_value = "http")]
    pub writers: Writers,

    /// How many write. Each has at most one message under way (over WebSockets: --pipeline)
    #[arg(long, default_value_t = 8)]
    pub publishers: usize,

    /// Messages per second, of all publishers together; or `max`, as fast as it goes
    #[arg(long, default_value = "100")]
    pub rate: Rate,

    /// Messages under way per publisher over WebSockets
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pipeline: u32,

    /// Documents per insert of --writers mongodb; above 1 only with --rate max
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,

    /// With --rate max: messages that may be stored before the slowest reader has them
    #[arg(long, default_value_t = 4_000)]
    pub behind_max: u64,

    /// Bytes of a message's content. 40 make a frame of about 250
    #[arg(long, default_value_t = 40, value_parser = content_bytes)]
    pub content_bytes: usize,

    /// The room that is written to and read
    #[arg(long, default_value = "load")]
    pub room: String,

    /// How long to measure
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub seconds: f64,

    /// How long to write before that
    #[arg(long, default_value_t = 3.0, value_parser = not_negative)]
    pub warmup_seconds: f64,

    /// How long to wait afterwards for what is still on its way
    #[arg(long, default_value_t = 20.0, value_parser = not_negative)]
    pub drain_seconds: f64,

    /// Compare the whole content of every n-th delivery; 0 = of none
    #[arg(long, default_value_t = 1_000)]
    pub check_every: u64,

    /// Also read MongoDB's change stream with the bare driver, in this process, for comparison
    #[arg(long)]
    pub bare_stream: bool,
}

/// How readers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// /ws
    Websocket,
    /// /api/events, server-sent events
    Sse,
    /// /socket.io/ over WebSocket, as Socket.IO 4 clients do
    #[value(name = "socket.io")]
    #[serde(rename = "socket.io")]
    SocketIo,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writers {
    /// POST, over kept connections
    Http,
    /// `send` frames over /ws
    Websocket,
    /// The MongoDB driver, w: majority, past the server
    Mongodb,
    /// The same, but all that wait are inserted together, and one such batch is under way at a time: what publishers through
    /// a server can not be faster than
    MongodbGrouped,
    /// Nobody
    None,
}

/// Messages per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    /// An open loop.
    PerSecond(f64),
    /// A closed loop.
    Max(Maximum),
}

/// The word `max` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maximum {
    #[serde(rename = "max")]
    Max,
}

impl Rate {
    pub const MAX: Rate = Rate::Max(Maximum::Max);
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Rate::MAX),
            _ => positive(text).map(Rate::PerSecond).map_err(|_| "is neither `max` nor a number above 0".into()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::PerSecond(rate) => write!(f, "{rate} msg/s"),
            Rate::Max(_) => f.write_str("as fast as it goes"),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|number| if number > 0.0 { Ok(number) } else { Err("must be above 0".into()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("must be a number of at least 0".into()),
    }
}

fn content_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ STAMP_BYTES..=4_000) => Ok(bytes),
        _ => Err(format!("must be between {STAMP_BYTES}, the length of a stamp, and 4000")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Flags::command().debug_assert();
        let flags = Flags::parse_from(["load", "--rate", "max", "--readers", "5"]);
        assert_eq!((flags.plan.rate, flags.plan.readers), (Rate::MAX, 5));
        assert!(Flags::try_parse_from(["load", "--rate", "0"]).is_err());
        assert!(Flags::try_parse_from(["load", "--content-bytes", "3"]).is_err());
    }

    #[test]
    fn a_rate_survives_json() {
        for rate in [Rate::MAX, Rate::PerSecond(2.5)] {
            let text = serde_json::to_string(&rate).unwrap();
            assert_eq!(serde_json::from_str::<Rate>(&text).unwrap(), rate, "{text}");
        }
    }
}
