//! Reads the settings, finds or starts MongoDB, runs the server until a signal, and stops both.

use std::io::Write;

use anyhow::{Context, anyhow};
use clap::{ArgMatches, CommandFactory, FromArgMatches, error::ErrorKind};
use corriente::{
    app::App,
    config::{Config, effective, uri_for_others},
    telemetry::{LogFormat, start_logging},
};
use mongo_replica_set::{Options, ReplicaSet, check_free};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info, warn};

fn main() {
    let (config, matches) = read_settings();
    let runtime = Builder::new_multi_thread().worker_threads(config.worker_threads()).enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| {
        eprintln!("corriente: the system gives no threads to run on: {error}");
        std::process::exit(1)
    });
    let code = runtime.block_on(serve(&config, &matches));
    // Everything is stopped. Returning would have tokio cancel the driver's background tasks in any order, and some of
    // them panic when another one is gone.
    std::process::exit(code)
}

/// Serves until a signal. Returns the exit code.
async fn serve(config: &Config, matches: &ArgMatches) -> i32 {
    let repeats = start_logging(config.log_format, &config.rust_log);
    tokio::spawn(repeats.clone().run());
    info!("settings: {}", effective(config, matches));
    let code = match run(config).await {
        Ok(()) => 0,
        Err(error) => {
            // `{:#}`: the sentence and its cause on one line.
            match config.log_format {
                LogFormat::Text => eprintln!("corriente: {error:#}"),
                LogFormat::Json => error!("{error:#}"),
            }
            1
        }
    };
    repeats.tell();
    code
}

/// Ends the process with a sentence when the settings make no sense, each or together.
fn read_settings() -> (Config, ArgMatches) {
    let matches = Config::command().get_matches();
    let read = Config::from_arg_matches(&matches).and_then(|config| match config.check() {
        Ok(()) => Ok(config),
        Err(faults) => Err(Config::command().error(ErrorKind::ArgumentConflict, faults.join("\nerror: "))),
    });
    (read.unwrap_or_else(|error| error.exit()), matches)
}

async fn run(config: &Config) -> anyhow::Result<()> {
    // From here on a signal is noticed, also while MongoDB is being fetched or started.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stop = Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let given_uri = config.given_uri();
    // Before MongoDB is fetched or started in vain.
    if let Err(fault) = App::check_address(config).await {
        // What has the port may be another run with the same files, of which there is more to say.
        if given_uri.is_none() {
            check_free(&config.data_dir).await?;
        }
        return Err(fault);
    }
    let embedded = match given_uri {
        Some(_) => None,
        None => {
            let options = Options { data_dir: Some(config.data_dir.clone()), ..Options::default() };
            let start = ReplicaSet::start(options, |sentence| match config.log_format {
                LogFormat::Text => eprintln!("{sentence}"),
                LogFormat::Json => info!("{sentence}"),
            });
            tokio::select! {
                started = start => Some(started?),
                () = &mut stop => return Ok(()),
            }
        }
    };
    let uri = match (given_uri, &embedded) {
        (Some(uri), _) => uri,
        (None, Some(embedded)) => embedded.uri(),
        (None, None) => unreachable!("one of the two was made above"),
    };
    // A member that is stopped on purpose below is no unexpected end: by then nobody watches.
    let served = tokio::select! {
        served = start_and_serve(config, uri, &mut stop) => served,
        error = keep_running(embedded.as_ref()) => Err(error),
    };
    let stopped = match embedded {
        Some(embedded) => embedded.stop().await.context("the embedded MongoDB did not stop cleanly"),
        None => Ok(()),
    };
    // What went wrong first is the reason.
    served.and(stopped)?;
    info!("stopped");
    Ok(())
}

/// Runs a server until `stop`.
async fn start_and_serve(config: &Config, uri: &str, mut stop: impl Future<Output = ()> + Unpin) -> anyhow::Result<()> {
    // Somebody may have taken it while MongoDB was started. Before streams are open, which would complain when MongoDB goes
    // with the server.
    App::check_address(config).await?;
    let app = tokio::select! {
        app = App::start(config, uri) => app?,
        () = &mut stop => return Ok(()),
    };
    // Two lines for programs that start this one; a closed stdout is their choice and no reason to end.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "mongodb: {}", uri_for_others(uri, Some(app.database())));
    let _ = writeln!(stdout, "listening on {}", app.url());
    let _ = stdout.flush();
    app.run_until(stop).await
}

/// Starts the embedded MongoDB again whenever it ends by itself or is killed: clients stay connected meanwhile, as
/// with any other MongoDB that comes back. Returns when that fails.
async fn keep_running(embedded: Option<&ReplicaSet>) -> anyhow::Error {
    let Some(embedded) = embedded else {
        return std::future::pending().await;
    };
    let error = embedded.keep_running(|end| warn!("{end}; starting it again")).await;
    anyhow!(error).context("the embedded MongoDB could not be kept running")
}
