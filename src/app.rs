//! One server: its parts, built in the order in which data meets them and stopped in reverse.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::anyhow;
use futures::future::select_all;
use rustix::system::uname;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    api::Api,
    base_path::BasePath,
    config::Config,
    cursor::{ClusterTime, Cursor},
    feed::{self, Feed, FeedWriter},
    listener::FrontDoor,
    mongo::{
        Changes, Deployment, History, Inserter, PresenceStore, ResumePoint, ServerReport, StretchLimits, Sweeper,
        Target, connect,
    },
    origin::Origins,
    pages::{Pages, RoomList},
    presence,
    rates::Rates,
    readiness::Readiness,
    replay::Replays,
    routes::{Operators, RequestLimits, routes},
    sessions::{Sessions, Sources},
    telemetry::Metrics,
    vitals::{self, VitalSources},
    watcher::{Told, Watcher},
};

/// How long requests and sessions may take to end when the server stops, in seconds, when the drain is shorter. A client
/// that reads is gone within a moment; this is for those that do not.
const STOP_SECS_MAX: u64 = 4;

/// How long MongoDB may take to be connected to and to say what it is, in seconds.
const CONNECT_SECS_MAX: u64 = 15;
/// How long opening the change stream may take at the start, in seconds: from now on there is nothing to look through.
const OPENING_SECS_MAX: u64 = 5;
/// How much of the past the log begins with, in seconds, and how long reading it may delay the start, in milliseconds.
const PREWARM_SECS: u32 = 60;
const PREWARM_MILLIS_MAX: u64 = 1_000;

/// A running server.
pub struct App {
    address: SocketAddr,
    base: BasePath,
    database: String,
    stop: CancellationToken,
    sessions: TaskTracker,
    stop_max: Duration,
    /// What must not end by itself, in the order in which it is stopped.
    vital: Vec<Vital>,
}

/// A task that must not end before the server stops.
struct Vital {
    name: &'static str,
    /// What its end means.
    loss: &'static str,
    /// Whether it ends by itself when the server stops. The others are needed to the last.
    ends_at_stop: bool,
    task: JoinHandle<()>,
}

impl App {
    /// Starts a server over the MongoDB at `uri`. It listens when the change stream is open, never before: what is
    /// inserted through it is then sure to come back.
    ///
    /// # Errors
    /// One sentence for a person: MongoDB can not be used, the collection can not be made ready, the address is taken.
    pub async fn start(config: &Config, uri: &str) -> anyhow::Result<Self> {
        let metrics = Metrics::default();
        config.check().map_err(|faults| anyhow!(faults.join("; ")))?;
        let connecting = connect(Target {
            uri,
            database: config.given_database(),
            collection: &config.collection,
            schema: config.schema_options(),
        });
        let deployment = timeout(Duration::from_secs(CONNECT_SECS_MAX), connecting).await.map_err(|_| {
            anyhow!("MongoDB did not answer within {CONNECT_SECS_MAX} s; check that it runs and is not overloaded")
        })??;
        let deployment = deployment.with_epoch(&config.epoch);
        info!("connected to MongoDB {} at {}", deployment.version, deployment.hosts);
        deployment.prepare_collection().await?;
        deployment.look_at_documents().await;

        let database = deployment.database().to_owned();
        let changes = Changes::open(&deployment, &ResumePoint::Now, Duration::from_secs(OPENING_SECS_MAX)).await?;
        let (writer, live) = prewarmed(&deployment, config, changes.start()).await;
        let (watcher, status) = Watcher::new(deployment.clone(), writer, changes.start(), metrics.clone());
        let watcher = Vital::spawn("watcher", "nothing would reach a client", false, watcher.run(changes));

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let history = History::new(&deployment);
        let (inserter, committer) = Inserter::new(&deployment, config.queue_limits(), metrics.clone());
        let committer = Vital::spawn("committer", "nothing would be inserted", false, committer.run());
        let (report, reported) = watch::channel(ServerReport::starting(String::new(), Told::Live.as_str()));
        let (presence, presence_keeper) = presence::open(PresenceStore::new(&deployment), reported);
        let sources = VitalSources {
            live: live.clone(),
            watcher: status.clone(),
            metrics: metrics.clone(),
            presence: presence.clone(),
        };
        let (vitals, vitals_keeper) = vitals::open(sources, report);
        let sweeper = Sweeper::new(&deployment).map(|sweeper| sweeper.run(stop.clone()));
        let sweeper = sweeper.map(|run| Vital::spawn("sweeper", "old messages without a date would stay", true, run));
        let rates = Rates::new(config.rate_limits(), &metrics);
        let api = Api {
            base: config.base_path.clone(),
            history: history.clone(),
            inserter: inserter.for_source("rest"),
            rates: rates.clone(),
            presence: presence.clone(),
            vitals: vitals.clone(),
            status: status.clone(),
        };
        let pages = Pages {
            base: config.base_path.clone(),
            history,
            inserter: inserter.for_source("form"),
            rates: rates.clone(),
            status: status.clone(),
            collection: config.collection.clone(),
            rooms: RoomList::default(),
            topics_max: config.topics_max,
        };
        let operators = Operators {
            readiness: Readiness::new(deployment.clone(), status.clone(), stop.clone()),
            vitals,
            metrics: metrics.clone(),
        };
        let replays = Replays::new(deployment, live.clone(), config.replay_limits(), metrics.clone());
        let sessions = Sessions {
            sources: Sources { live, replays, presence, topics_max: config.topics_max },
            status,
            inserter: inserter.for_source("websocket"),
            rates: rates.clone(),
            metrics: metrics.clone(),
            drain_max: Duration::from_secs(config.drain_secs),
            keep_alive: config.keep_alive(),
            silence_max: Duration::from_secs(config.silence_secs),
            stop: stop.clone(),
            tasks: tasks.clone(),
            failed: CancellationToken::new(),
            places: Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS))),
        };

        info!(
            "with these settings memory stays below {} MiB: that is for every bound reached at once, and far more than is used",
            config.memory_bytes_max() >> 20
        );
        let listener = bind(config).await?;
        let address = listener.local_addr()?;
        // The other servers know this one by its address.
        let keeper = vitals_keeper.named(server_name(address)).run(stop.clone());
        let vitals_keeper = Vital::spawn("vitals keeper", "nobody would see how the server is", true, keeper);
        let keeper = {
            let (stop, may_write) = (stop.clone(), !config.read_only);
            async move { if may_write { presence_keeper.run(stop).await } else { stop.cancelled().await } }
        };
        let presence_keeper = Vital::spawn("presence keeper", "nobody would know who is here", true, keeper);
        // The drain, and a moment for the last to go.
        let stop_max = Duration::from_secs(STOP_SECS_MAX.max(config.drain_secs + 2));
        let limits = RequestLimits {
            origins: Origins::new(&config.allow_origin),
            rates,
            body_time_max: Duration::from_secs(config.body_secs),
        };
        let failed = sessions.failed.clone();
        let closer = async move { failed.cancelled().await };
        let closer = Vital::spawn("task that closes Socket.IO's connections", "they would outlive it", false, closer);
        let door = FrontDoor::new(listener, config.door_limits(), &metrics);
        let endpoint = routes(api, pages, sessions, operators, limits);
        let server = door.serve(endpoint, stop.clone(), stop_max);
        let server = Vital::spawn("HTTP server", "nobody would be answered", true, server);
        let keepers = [server, presence_keeper, vitals_keeper];
        let vital = keepers.into_iter().chain(sweeper).chain([closer, watcher, committer]).collect();
        let base = config.base_path.clone();
        Ok(Self { address, base, database, stop, sessions: tasks, stop_max, vital })
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
        format!("http://{}{}", self.address, self.base)
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
            (outcome, index, _) = select_all(self.vital.iter_mut().map(|vital| &mut vital.task)) => Err((outcome, index)),
        };
        let ended = ended.map_err(|(outcome, index)| {
            // Its outcome is taken: it can not be waited for once more.
            let Vital { name, loss, .. } = self.vital.remove(index);
            anyhow!("the {name} ended, so {loss}: {outcome:?}")
        });
        self.stop().await;
        ended
    }

    /// Stops the server; see [`Self::run_until`].
    pub async fn stop(mut self) {
        // In this order: sessions that are woken by the second look at the first.
        self.sessions.close();
        self.stop.cancel();
        let stopping = async {
            for Vital { name, task, .. } in self.vital.iter_mut().filter(|vital| vital.ends_at_stop) {
                if let Err(fault) = task.await {
                    error!("the {name} did not stop cleanly: {fault}");
                }
            }
            self.sessions.wait().await;
        };
        if timeout(self.stop_max, stopping).await.is_err() {
            error!("some connections had to be cut after {} s", self.stop_max.as_secs());
        }
        // Last: what was inserted until now still reached the sessions.
        for vital in self.vital.iter().filter(|vital| !vital.ends_at_stop) {
            vital.task.abort();
        }
    }
}

impl Vital {
    fn spawn(
        name: &'static str,
        loss: &'static str,
        ends_at_stop: bool,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { name, loss, ends_at_stop, task: tokio::spawn(task) }
    }
}

/// The machine's name and the port, for people who look at several servers.
fn server_name(address: SocketAddr) -> String {
    let machine = uname();
    format!("{}:{}", machine.nodename().to_string_lossy(), address.port())
}

async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let Config { host, port, .. } = config;
    // An address of IPv6 may also be written as in a URL.
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    TcpListener::bind((name, *port)).await.map_err(|cause| {
        let perhaps = match cause.kind() {
            ErrorKind::AddrInUse => ", as another program does already (another Corriente, perhaps)",
            _ => "",
        };
        let sentence = format!(
            "{host}:{port} can not be listened on{perhaps}; choose another address with HOST and PORT (PORT=0 takes any free port)"
        );
        anyhow!(cause).context(sentence)
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
    use std::future::{pending, ready};

    use super::*;

    /// An app of tasks that go on until it stops, but for the one of this name, which ends at once.
    fn app_without(name: &str) -> App {
        let stop = CancellationToken::new();
        let vital = [("server", true), ("keeper", true), ("watcher", false)].map(|(each, ends_at_stop)| {
            let stop = stop.clone();
            let is_ended = each == name;
            Vital::spawn(each, "nothing would go on", ends_at_stop, async move {
                if !is_ended {
                    stop.cancelled().await;
                }
            })
        });
        App {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            base: BasePath::default(),
            database: String::new(),
            stop,
            sessions: TaskTracker::new(),
            stop_max: Duration::from_secs(20),
            vital: vital.into(),
        }
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_by_itself_ends_the_server_by_name() {
        for name in ["server", "keeper", "watcher"] {
            let ended = timeout(Duration::from_secs(20), app_without(name).run_until(pending())).await;
            let error = ended.expect("it does not go on").expect_err("it does not end well");
            assert!(error.to_string().starts_with(&format!("the {name} ended, so nothing would go on")), "{error}");
        }
        assert!(app_without("").run_until(ready(())).await.is_ok());
    }
}
