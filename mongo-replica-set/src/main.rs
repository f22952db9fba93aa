//! Starts a MongoDB replica set on this machine and runs it until it is interrupted.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mongo_replica_set::{Error, Options, ReplicaSet};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a MongoDB replica set on 127.0.0.1 until SIGINT or SIGTERM, and prints where it answers.
///
/// A member that is killed is started again on the same port and files.
///
/// mongod is taken from MONGOD, the PATH, or the cache; else it is downloaded into the cache.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many members, 1 to 7
    #[arg(long, value_name = "N", default_value_t = 1)]
    members: usize,

    /// Where the files live; without it they are temporary
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The preferred port of the first member; the others follow it
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// The size of the oplog, when the files are created
    #[arg(long, value_name = "MB")]
    oplog_size_mb: Option<u32>,

    /// How often the journal is flushed: change streams show `w: 1` writes only then
    #[arg(long, value_name = "MS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=500))]
    journal_commit_interval_ms: u32,

    /// Allow failCommand and the other commands that MongoDB reserves for tests
    #[arg(long)]
    test_commands: bool,

    /// More arguments for each mongod, after `--`
    #[arg(last = true, value_name = "MONGOD ARGUMENTS")]
    extra_args: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mongo-replica-set: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let options = Options {
        mongod: None,
        members: arguments.members,
        data_dir: arguments.data_dir,
        port: arguments.port,
        oplog_size_mb: arguments.oplog_size_mb,
        journal_commit_interval_ms: Some(arguments.journal_commit_interval_ms),
        test_commands: arguments.test_commands,
        extra_args: arguments.extra_args,
    };
    // Before the first child exists: from here on a signal ends it with us.
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let set = tokio::select! {
        set = ReplicaSet::start(options, |line| eprintln!("{line}")) => set?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    // A reader that has gone away is no reason to stop.
    let _ = writeln!(std::io::stdout(), "mongodb: {}", set.uri());
    let end = tokio::select! {
        error = set.keep_running(|end| eprintln!("{end}; starting it again.")) => Err(error),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    end.and(set.stop().await)
}

fn on(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|cause| Error::System { what: "listen for signals".to_owned(), cause })
}
