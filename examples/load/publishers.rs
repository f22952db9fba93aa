//! Those who write: what they share, and the loops over HTTP and past the server. `sockets.rs` has the one over
//! WebSockets, `grouped.rs` the one of those who are inserted together.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use mongodb::{
    Client, Collection,
    bson::{DateTime, Document, doc},
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::{
    flags::{Plan, Rate, Target, Writers},
    grouped::{self, Group},
    http::{Kept, Site},
    readers::Progress,
    schedule::{Schedule, deal},
    sockets,
    stamp::{Nanos, Stamp, now},
    stats::{Delays, no_delays, record},
};

/// How long publishers may go on after the end with what they are late with, in nanoseconds.
const LATE_NANOS_MAX: Nanos = 5_000_000_000;
/// The pause of a publisher after a failure: a server that refuses everything is not to be hammered.
pub const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What became of everything that was written.
pub struct Records {
    /// From when a message was meant to be sent until it was acknowledged.
    pub acks: Delays,
    /// Acknowledged, in the whole run.
    pub accepted: u64,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
    /// By writer: how many were sent.
    pub sent: Vec<u32>,
    /// Sent and not acknowledged: they may be stored or not, and nobody promised them.
    pub unsure: HashSet<(u16, u32)>,
    window: (Nanos, Nanos),
}

impl Records {
    /// Notes an acknowledgement.
    pub fn acknowledged(&mut self, stamp: &Stamp) {
        self.accepted += 1;
        if (self.window.0..self.window.1).contains(&stamp.intended) {
            record(&mut self.acks, now().saturating_sub(stamp.intended));
        }
    }

    /// Notes a failure.
    pub fn failed(&mut self, stamp: &Stamp, kind: String) {
        self.unsure.insert((stamp.writer, stamp.sequence));
        *self.errors.entry(kind).or_default() += 1;
    }

    /// Notes that a connection broke with these messages under way.
    pub fn broke(&mut self, under_way: &VecDeque<Stamp>, kind: &str) {
        under_way.iter().for_each(|stamp| self.failed(stamp, kind.to_owned()));
        if under_way.is_empty() {
            *self.errors.entry(kind.to_owned()).or_default() += 1;
        }
    }
}

/// All publishers of one run.
pub struct Publishers {
    records: Arc<Mutex<Records>>,
    tasks: JoinSet<()>,
}

impl Publishers {
    /// Starts them: they write from `start` until `window.1`, and what is meant for the window is measured.
    pub async fn start(
        site: &Site,
        target: &Target,
        plan: &Plan,
        progress: Progress,
        start: Nanos,
        window: (Nanos, Nanos),
    ) -> anyhow::Result<Self> {
        let count = if plan.writers == Writers::None { 0 } else { plan.publishers };
        let records = Records {
            acks: no_delays(),
            accepted: 0,
            errors: BTreeMap::new(),
            sent: vec![0; count],
            unsure: HashSet::new(),
            window,
        };
        let records = Arc::new(Mutex::new(records));
        let collection = match (plan.writers, &target.mongodb_uri) {
            (Writers::Mongodb | Writers::MongodbGrouped, Some(uri)) => Some(collection(uri, &target.database).await?),
            (Writers::Mongodb | Writers::MongodbGrouped, None) => {
                anyhow::bail!("writers past the server need --mongodb-uri beside --url")
            }
            _ => None,
        };
        let group = collection.clone().filter(|_| plan.writers == Writers::MongodbGrouped).map(Group::open);
        let queues: Vec<_> = match plan.rate {
            Rate::Max(_) => (0..count).map(|_| None).collect(),
            Rate::PerSecond(_) if count == 0 => Vec::new(),
            Rate::PerSecond(per_second) => {
                deal(Schedule { start, per_second }, window.1, count).into_iter().map(Some).collect()
            }
        };
        let mut tasks = JoinSet::new();
        for (writer, queue) in (0..).zip(queues) {
            let publisher = Publisher {
                writer,
                sequence: 0,
                queue,
                start,
                until: window.1,
                progress: progress.clone(),
                slowest: 0,
                site: site.clone(),
                path: target.post_path.clone(),
                plan: plan.clone(),
                records: records.clone(),
            };
            match (&group, &collection) {
                (Some(group), _) => tasks.spawn(grouped::publish(publisher, group.clone())),
                (None, Some(collection)) => tasks.spawn(publisher.insert(collection.clone())),
                (None, None) if plan.writers == Writers::Websocket => tasks.spawn(sockets::publish(publisher)),
                (None, None) => tasks.spawn(publisher.post()),
            };
        }
        Ok(Self { records, tasks })
    }

    /// Acknowledged so far.
    pub fn accepted(&self) -> u64 {
        lock(&self.records).accepted
    }

    /// Waits until all are done: a few seconds after the end at the latest, plus the time of an answer.
    pub async fn finish(mut self) -> anyhow::Result<Records> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a publisher broke")?;
        }
        let mutex = Arc::into_inner(self.records).context("a publisher is still there")?;
        Ok(mutex.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One of those who write.
pub struct Publisher {
    writer: u16,
    sequence: u32,
    /// The times to send at; `None` in a closed loop.
    queue: Option<mpsc::UnboundedReceiver<Nanos>>,
    start: Nanos,
    until: Nanos,
    progress: Progress,
    /// What [`Progress::slowest`] said last.
    slowest: u64,
    pub site: Site,
    path: String,
    pub plan: Plan,
    records: Arc<Mutex<Records>>,
}

impl Publisher {
    /// The next message to send, when it is due; `None` at the end. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Stamp> {
        let intended = match &mut self.queue {
            Some(queue) => {
                let intended = queue.recv().await?;
                if now() >= self.until + LATE_NANOS_MAX {
                    // Counted, so that nobody takes delays without them for the truth.
                    let given_up = 1 + queue.len() as u64;
                    let kind = "never sent: the server was too slow for this rate".to_owned();
                    *lock(&self.records).errors.entry(kind).or_default() += given_up;
                    return None;
                }
                intended
            }
            None => {
                while now() < self.start || self.is_too_far_ahead() {
                    sleep(Duration::from_millis(1)).await;
                    if now() >= self.until {
                        return None;
                    }
                }
                Some(now()).filter(|now| *now < self.until)?
            }
        };
        Some(self.stamp(intended))
    }

    /// As [`Self::next`], but only what is due already.
    pub fn try_next(&mut self) -> Option<Stamp> {
        let intended = match &mut self.queue {
            Some(queue) => queue.try_recv().ok()?,
            None => Some(now()).filter(|now| *now < self.until && !self.is_too_far_ahead())?,
        };
        Some(self.stamp(intended))
    }

    /// Whether nothing may be sent any more.
    pub fn is_over(&self) -> bool {
        now() >= self.until + LATE_NANOS_MAX
    }

    /// What stands in every message, after the opening brace.
    pub fn fields(&self, stamp: &Stamp) -> String {
        let content = stamp.content(self.plan.content_bytes);
        format!(r#""content":"{content}","sender":"writer {}","room":"{}"}}"#, stamp.writer, self.plan.room)
    }

    pub fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }

    fn stamp(&mut self, intended: Nanos) -> Stamp {
        let stamp = Stamp { writer: self.writer, sequence: self.sequence, intended };
        self.sequence += 1;
        if let Some(sent) = lock(&self.records).sent.get_mut(usize::from(self.writer)) {
            *sent = self.sequence;
        }
        stamp
    }

    /// Whether the slowest reader is to catch up first. Its progress is looked at only when the last look does not do.
    fn is_too_far_ahead(&mut self) -> bool {
        let allowed = self.slowest.saturating_add(self.plan.behind_max);
        let sent: u64 = lock(&self.records).sent.iter().copied().map(u64::from).sum();
        if sent < allowed {
            return false;
        }
        self.slowest = self.progress.slowest();
        sent >= self.slowest.saturating_add(self.plan.behind_max)
    }

    async fn post(mut self) {
        let mut kept = None;
        while let Some(stamp) = self.next().await {
            let body = format!("{{{}", self.fields(&stamp));
            let answer = async {
                let connection = match kept.take() {
                    Some(connection) => connection,
                    None => Kept::open(&self.site, &self.path).await?,
                };
                let (status, _) = kept.insert(connection).post(&body).await?;
                anyhow::Ok(status)
            };
            let kind = match answer.await {
                Ok(200..300) => {
                    lock(&self.records).acknowledged(&stamp);
                    continue;
                }
                Ok(status) => format!("answered {status}"),
                Err(error) => {
                    kept = None;
                    format!("{error:#}")
                }
            };
            lock(&self.records).failed(&stamp, kind);
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }

    async fn insert(mut self, collection: Collection<Document>) {
        while let Some(first) = self.next().await {
            let mut stamps = vec![first];
            while stamps.len() < self.plan.batch as usize
                && let Some(stamp) = self.try_next()
            {
                stamps.push(stamp);
            }
            let documents: Vec<_> = stamps.iter().map(|stamp| self.document(stamp)).collect();
            let outcome = match documents.as_slice() {
                [one] => collection.insert_one(one).await.map(|_| ()),
                many => collection.insert_many(many).await.map(|_| ()),
            };
            for stamp in &stamps {
                match &outcome {
                    Ok(()) => self.records().acknowledged(stamp),
                    Err(error) => self.records().failed(stamp, error.kind.to_string()),
                }
            }
            if outcome.is_err() {
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }

    pub fn document(&self, stamp: &Stamp) -> Document {
        doc! {
            "content": stamp.content(self.plan.content_bytes),
            "sender": format!("writer {}", stamp.writer),
            "room": &self.plan.room,
            "date": DateTime::now(),
        }
    }
}

/// The collection as another program has it: every write waits for the disks of a majority, as the server's own do.
pub async fn collection(uri: &str, database: &str) -> anyhow::Result<Collection<Document>> {
    let client = Client::with_uri_str(uri).await.context("the MongoDB URI can not be used")?;
    let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    let options = CollectionOptions::builder().write_concern(concern).build();
    Ok(client.database(database).collection_with_options("messages", options))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
