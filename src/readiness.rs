//! Whether this server is of use just now, and if not, why: for load balancers, which ask again and again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cursor::Cursor,
    mongo::Deployment,
    watcher::{Liveness, WatcherStatus},
};

/// For how long an answer of MongoDB is good enough, in milliseconds: however often somebody asks, MongoDB is asked once
/// in that time.
const PING_MILLIS_MIN: u64 = 1_000;
/// How long MongoDB may take to answer, in milliseconds. Those who ask wait for a second or two themselves.
const PING_MILLIS_MAX: u64 = 1_000;

/// Finds out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    deployment: Deployment,
    watcher: WatcherStatus,
    stop: CancellationToken,
    /// Held while MongoDB is asked, so that of many who want to know one asks.
    last: Arc<Mutex<Option<(Instant, Answered)>>>,
}

/// That MongoDB has answered, or why not.
type Answered = Result<(), String>;

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// How live the stream is.
    pub stream: Liveness,
    /// The place of the stream.
    pub position: Cursor,
    /// Whether MongoDB takes commands where messages are written, or why not.
    pub mongodb: Result<(), String>,
    /// Whether the server is about to stop.
    pub is_draining: bool,
}

impl Readiness {
    /// Of a server that stops when `stop` is cancelled.
    pub fn new(deployment: Deployment, watcher: WatcherStatus, stop: CancellationToken) -> Self {
        Self { deployment, watcher, stop, last: Arc::default() }
    }

    /// Looks. Takes about a second at most.
    pub async fn look(&self) -> Found {
        let mongodb = self.ping().await;
        Found {
            stream: self.watcher.liveness(),
            position: self.watcher.position(),
            mongodb,
            is_draining: self.stop.is_cancelled(),
        }
    }

    async fn ping(&self) -> Answered {
        let mut last = self.last.lock().await;
        if let Some((at, outcome)) = &*last
            && at.elapsed() < Duration::from_millis(PING_MILLIS_MIN)
        {
            return outcome.clone();
        }
        let asked = timeout(Duration::from_millis(PING_MILLIS_MAX), self.deployment.ping()).await;
        let outcome = asked.unwrap_or_else(|_| Err(format!("no answer within {PING_MILLIS_MAX} ms")));
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }
}

impl Found {
    /// Why the server is of no use; nothing when it is.
    pub fn reasons(&self) -> Vec<String> {
        let draining = self.is_draining.then(|| "draining: the server is about to stop".to_owned());
        let mongodb = self.mongodb.as_ref().err().map(|reason| format!("MongoDB does not answer: {reason}"));
        let stream = match self.stream {
            Liveness::Live => None,
            Liveness::CatchingUp => Some("the change stream is being opened again".to_owned()),
            Liveness::Stale(secs) => Some(format!("the change stream has not moved for {secs} s")),
        };
        [draining, mongodb, stream].into_iter().flatten().collect()
    }
}
