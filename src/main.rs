//! Reads the settings, finds or starts MongoDB, runs the server until a signal, and stops both.

use std::io::Write;

use anyhow::{Context, anyhow};
use clap::Parser;
use corriente::{
    app::App,
    config::Config,
    telemetry::{LogFormat, start_logging},
};
use mongo_replica_set::{Options, ReplicaSet};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

#[tokio::main]
async fn main() {
    let config = Config::parse();
    start_logging(config.log_format);
    let code = match run(&config).await {
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
    // Everything is stopped. Returning would have tokio cancel the driver's background tasks in any order, and some of
    // them panic when another one is gone.
    std::process::exit(code)
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
    let embedded = match &config.mongodb_uri {
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
    let uri = match (&config.mongodb_uri, &embedded) {
        (Some(uri), _) => uri.as_str(),
        (None, Some(embedded)) => embedded.uri(),
        (None, None) => unreachable!("one of the two was made above"),
    };
    // A member that is stopped on purpose below is no unexpected end: by then nobody watches.
    let served = tokio::select! {
        served = start_and_serve(config, uri, &mut stop) => served,
        error = keep_running(embedded.as_ref()) => Err(error),
    };
    if let Some(embedded) = embedded {
        embedded.stop().await.context("the embedded MongoDB did not stop cleanly")?;
    }
    info!("stopped");
    served
}

/// Runs a server until `stop`.
async fn start_and_serve(config: &Config, uri: &str, mut stop: impl Future<Output = ()> + Unpin) -> anyhow::Result<()> {
    let app = tokio::select! {
        app = App::start(config, uri) => app?,
        () = &mut stop => return Ok(()),
    };
    // Two lines for programs that start this one; a closed stdout is their choice and no reason to end.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "mongodb: {}", without_credentials(uri));
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
    loop {
        let end = embedded.unexpected_end().await;
        warn!("{end}; starting it again");
        if let Err(error) = embedded.restart(0).await {
            return anyhow!(error).context("the embedded MongoDB ended and could not be started again");
        }
    }
}

/// The URI without `user:password@`.
fn without_credentials(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find(['/', '?']).unwrap_or(rest.len());
            let hosts = rest[..authority].rsplit_once('@').map_or(&rest[..authority], |(_, hosts)| hosts);
            format!("{scheme}://{hosts}{}", &rest[authority..])
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn credentials_are_not_printed() {
        for (uri, printed) in [
            ("mongodb://u:p@h1,h2/db?replicaSet=rs0", "mongodb://h1,h2/db?replicaSet=rs0"),
            ("mongodb+srv://u:p%40x@c.example.net", "mongodb+srv://c.example.net"),
            ("mongodb://h/?authSource=a@b", "mongodb://h/?authSource=a@b"),
        ] {
            assert_eq!(without_credentials(uri), printed);
        }
    }
}
