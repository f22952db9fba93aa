//! One server: its parts, built in the order in which data meets them and stopped in reverse.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, anyhow};
use poem::EndpointExt;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    api::Api,
    config::Config,
    cursor::{ClusterTime, Cursor},
    feed::{self, Feed, FeedWriter},
    listener::FrontDoor,
    mongo::{Changes, Deployment, History, Inserter, PresenceStore, ResumePoint, StretchLimits, connect},
    origin::Origins,
    pages::{Pages, RoomList},
    presence,
    rates::Rates,
    replay::Replays,
    routes::{RequestLimits, routes},
    sessions::{Sessions, Sources},
    telemetry::Metrics,
    watcher::Watcher,
};

/// How long requests and sessions may take to end when the server stops, in seconds, when the drain is shorter. A client
/// that reads is gone within a moment; this is for those that do not.
const STOP_SECS_MAX: u64 = 4;

/// How long MongoDB may take to be connected to and to say what it is, in seconds.
const CONNECT_SECS_MAX: u64 = 15;
/// How much of the past the log begins with, in seconds, and how long reading it may delay the start, in milliseconds.
const PREWARM_SECS: u32 = 60;
const PREWARM_MILLIS_MAX: u64 = 1_000;

/// A running server.
pub struct App {
    address: SocketAddr,
    database: String,
    stop: CancellationToken,
    sessions: TaskTracker,
    stop_max: Duration,
    server: JoinHandle<()>,
    watcher: JoinHandle<()>,
    committer: JoinHandle<()>,
    presence_keeper: JoinHandle<()>,
}

impl App {
    /// Starts a server over the MongoDB at `uri`. It listens when the change stream is open, never before: what is
    /// inserted through it is then sure to come back.
    ///
    /// # Errors
    /// One sentence for a person: MongoDB can not be used, the collection can not be made ready, the address is taken.
    pub async fn start(config: &Config, uri: &str) -> anyhow::Result<Self> {
        let metrics = Metrics::default();
        let connecting = connect(uri, config.database.as_deref(), &config.collection);
        let deployment = timeout(Duration::from_secs(CONNECT_SECS_MAX), connecting).await.map_err(|_| {
            anyhow!("MongoDB did not answer within {CONNECT_SECS_MAX} s; check that it runs and is not overloaded")
        })??;
        info!("connected to MongoDB {} at {}", deployment.version, deployment.hosts);
        deployment.prepare_collection(config.schema_options()).await?;

        let database = deployment.database().to_owned();
        let changes = Changes::open(&deployment, &ResumePoint::Now).await?;
        let (writer, live) = prewarmed(&deployment, config, changes.start()).await;
        let (watcher, status) = Watcher::new(deployment.clone(), writer, changes.start(), metrics.clone());
        let watcher = tokio::spawn(watcher.run(changes));

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let history = History::new(&deployment);
        let (inserter, committer) = Inserter::new(&deployment, config.queue_limits(), metrics.clone());
        let committer = tokio::spawn(committer.run());
        let (presence, presence_keeper) = presence::open(PresenceStore::new(&deployment));
        let presence_keeper = tokio::spawn(presence_keeper.run(stop.clone()));
        let rates = Rates::new(config.rate_limits(), &metrics);
        let api = Api {
            history: history.clone(),
            inserter: inserter.for_source("rest"),
            rates: rates.clone(),
            presence: presence.clone(),
            status: status.clone(),
        };
        let pages = Pages {
            history,
            inserter: inserter.for_source("form"),
            rates: rates.clone(),
            status: status.clone(),
            collection: config.collection.clone(),
            rooms: RoomList::default(),
            topics_max: config.topics_max,
        };
        let replays = Replays::new(deployment, live.clone(), config.replay_limits(), metrics.clone());
        let sessions = Sessions {
            sources: Sources { live, replays, presence, topics_max: config.topics_max },
            status,
            inserter: inserter.for_source("websocket"),
            rates: rates.clone(),
            metrics: metrics.clone(),
            drain_max: Duration::from_secs(config.drain_secs),
            connections_max: config.connections_max,
            silence_max: Duration::from_secs(config.silence_secs),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };

        info!("with these settings memory stays below {} MiB", config.memory_bytes_max() >> 20);
        let listener = bind(config).await?;
        let address = listener.local_addr()?;
        // The drain, and a moment for the last to go.
        let stop_max = Duration::from_secs(STOP_SECS_MAX.max(config.drain_secs + 2));
        let limits = RequestLimits {
            origins: Origins::new(&config.allow_origin),
            rates,
            body_time_max: Duration::from_secs(config.body_secs),
        };
        let door = FrontDoor::new(listener, config.door_limits(), &metrics);
        let endpoint = routes(api, pages, sessions, metrics, limits);
        let server = tokio::spawn(door.serve(endpoint.map_to_response(), stop.clone(), stop_max));
        Ok(Self { address, database, stop, sessions: tasks, stop_max, server, watcher, committer, presence_keeper })
    }

    /// Finds out whether the address of `config` can be listened on, before a server is started for it.
    ///
    /// # Errors
    /// When it can not: one sentence for a person.
    pub async fn check_address(config: &Config) -> anyhow::Result<()> {
        bind(config).await.map(drop)
    }

    /// Where the server answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The database that the messages are in.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Runs until `signal`, then stops: no new connections, sessions closed with 1012, inserts under way finished.
    ///
    /// # Errors
    /// When a task that must not end has ended by itself: the process must not go on as if nothing had happened.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = signal => Ok(()),
            outcome = &mut self.watcher => Err(anyhow!("the watcher ended, so nothing would reach a client: {outcome:?}")),
            outcome = &mut self.committer => Err(anyhow!("the committer ended, so nothing would be inserted: {outcome:?}")),
            outcome = &mut self.server => Err(anyhow!("the HTTP server ended: {outcome:?}")),
        };
        self.stop().await;
        ended
    }

    /// Stops the server; see [`Self::run_until`].
    pub async fn stop(self) {
        // In this order: sessions that are woken by the second look at the first.
        self.sessions.close();
        self.stop.cancel();
        let stopping = async {
            // One that has ended by itself is the reason why we stop, and can not be waited for again.
            if !self.server.is_finished()
                && let Err(fault) = self.server.await
            {
                error!("the HTTP server did not stop cleanly: {fault}");
            }
            self.sessions.wait().await;
            if let Err(fault) = self.presence_keeper.await {
                error!("who is here was not kept to the end: {fault}");
            }
        };
        if timeout(self.stop_max, stopping).await.is_err() {
            error!("some connections had to be cut after {} s", self.stop_max.as_secs());
        }
        // Last: what was inserted until now still reached the sessions.
        self.watcher.abort();
        self.committer.abort();
    }
}

async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let Config { host, port, .. } = config;
    // An address of IPv6 may also be written as in a URL.
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    TcpListener::bind((name, *port)).await.with_context(|| {
        format!(
            "{host}:{port} can not be listened on; choose another address with HOST and PORT (PORT=0 takes any free port)"
        )
    })
}

/// Opens the log with the last minute of the stream before `start` in it, if that can be had within a second: clients
/// that come back to a server that was restarted then go on from memory.
async fn prewarmed(deployment: &Deployment, config: &Config, start: Cursor) -> (FeedWriter, Feed) {
    let limits = config.log_limits();
    let bounds = StretchLimits {
        events_max: limits.entries_max,
        bytes_max: limits.bytes_max / 4,
        patience: Duration::from_millis(PREWARM_MILLIS_MAX),
    };
    let from = ClusterTime { seconds: start.time.seconds.saturating_sub(PREWARM_SECS), increment: 0 };
    // The start of an idle stream lies one beyond the newest change.
    let newest = ClusterTime { increment: start.time.increment.saturating_sub(1), ..start.time };
    match deployment.changes_between(from, start, bounds).await {
        // A node that lags behind may not have come to the start: the log would be silent about what lies between.
        Ok(mut stretch) if stretch.end.time >= newest => {
            // What the live stream will bring itself begins at its start.
            stretch.events.retain(|(cursor, _)| cursor.time < start.time);
            let (mut writer, live) = feed::open(limits, stretch.start);
            writer.append(stretch.events, start);
            (writer, live)
        }
        outcome => {
            let reason = outcome.err().map_or("lagging", |error| error.as_str());
            info!("the log begins now: the last minute could not be read ({reason})");
            feed::open(limits, start)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// A server of tasks that do nothing, of which one ends.
    fn app_without(task: &str) -> App {
        let task_named = |name: &str| {
            let ends = name == task;
            tokio::spawn(async move { if ends { panic!("on purpose") } else { pending().await } })
        };
        App {
            address: ([127, 0, 0, 1], 0).into(),
            database: String::new(),
            stop: CancellationToken::new(),
            sessions: TaskTracker::new(),
            stop_max: Duration::from_millis(10),
            server: task_named("HTTP server"),
            watcher: task_named("watcher"),
            committer: task_named("committer"),
            presence_keeper: task_named("presence"),
        }
    }

    #[tokio::test]
    async fn a_task_that_must_not_end_ends_the_server_by_its_name() {
        for task in ["watcher", "committer", "HTTP server"] {
            let ended = app_without(task).run_until(pending()).await;
            let words = ended.expect_err("the server stops").to_string();
            assert!(words.contains(task) && words.contains("Panic"), "{words}");
        }
    }
}
