//! Group commit: messages that wait leave together, in one `insert_many`, as soon as the one before it is back.
//!
//! There is no timer. A message that comes alone leaves at once; under load the batches grow by themselves, as all
//! that came while one was on its way is the next. One is on its way at a time: two could overtake each other (MongoDB
//! falls back to single inserts when one of a batch is a duplicate), and two messages of one connection must not.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use mongodb::{
    bson::{self, RawDocument, RawDocumentBuf, cstr, oid::ObjectId},
    error::{Error, ErrorKind, IndexedWriteError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tracing::warn;

use super::{
    connect::{Deployment, sentence_of},
    dates::Dates,
};
use crate::telemetry::{Metrics, Seldom};

/// The most messages that leave together. More gain nothing, and let the first of them wait for the last.
const BATCH_DOCUMENTS_MAX: usize = 1_000;
/// How long MongoDB may take to confirm a batch, in seconds. Then its outcome is unknown, and the next one leaves.
const BATCH_SECS_MAX: u64 = 5;
/// What a message costs in the queue beside its document, in bytes, roughly.
const WAITING_BYTES: usize = 256;

/// How many messages may wait for MongoDB. When it is slower than the input for long, the rest is refused.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// The most messages, beside those that are on their way.
    pub documents_max: usize,
    /// The most memory of all that wait or are on their way, in bytes.
    pub bytes_max: usize,
}

/// What became of one message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// A majority has it on disk, with this date.
    Stored(DateTime<Utc>),
    /// A document has its `_id` already.
    IdIsTaken,
    /// A rule of the collection is against it.
    Refused(&'static str),
    /// It may or may not be stored. The reason is in the log.
    Unknown,
}

/// There is no room in the queue: the message was not sent to MongoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

struct Waiting {
    document: RawDocumentBuf,
    outcome: oneshot::Sender<Outcome>,
    /// Its share of [`QueueLimits::bytes_max`].
    _bytes: OwnedSemaphorePermit,
}

/// The end of the queue where messages come in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    waiting: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

impl Queue {
    /// Lets a document without its date join the next batch. What becomes of it comes later; never, when the
    /// [`Committer`] is gone. A message whose receiver is dropped before its batch leaves is not sent.
    pub(super) fn join(&self, document: RawDocumentBuf) -> Result<oneshot::Receiver<Outcome>, Full> {
        let bytes = u32::try_from(document.as_bytes().len() + WAITING_BYTES).map_err(|_| Full)?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes).map_err(|_| Full)?;
        let (outcome, told) = oneshot::channel();
        self.waiting.try_send(Waiting { document, outcome, _bytes: bytes }).map_err(|_| Full)?;
        Ok(told)
    }
}

/// The other end: the one task that inserts. It ends when every [`Queue`] is gone and nothing waits.
pub struct Committer {
    waiting: mpsc::Receiver<Waiting>,
    deployment: Deployment,
    dates: Dates,
    metrics: Metrics,
    failures: Seldom,
}

/// Opens a queue.
pub(super) fn open(deployment: &Deployment, limits: QueueLimits, metrics: Metrics) -> (Queue, Committer) {
    let (sender, waiting) = mpsc::channel(limits.documents_max.max(1));
    let bytes = Arc::new(Semaphore::new(limits.bytes_max.min(Semaphore::MAX_PERMITS)));
    let failures = Seldom::default();
    (
        Queue { waiting: sender, bytes },
        Committer { waiting, deployment: deployment.clone(), dates: Dates::default(), metrics, failures },
    )
}

impl Committer {
    /// Inserts whatever waits, batch after batch.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.waiting.recv_many(&mut batch, BATCH_DOCUMENTS_MAX).await > 0 {
            // Nobody waits any longer for some of them: after an outage, say. They were told that they may not be stored.
            batch.retain(|waiting| !waiting.outcome.is_closed());
            if !batch.is_empty() {
                self.commit(std::mem::take(&mut batch)).await;
            }
        }
    }

    async fn commit(&mut self, mut batch: Vec<Waiting>) {
        self.metrics.insert_batch_size.observe(batch.len() as f64);
        // Dated here, where the order is decided.
        let sent = batch.iter().map(|waiting| (sender_of(&waiting.document), id_of(&waiting.document)));
        let dates = self.dates.of_batch(Utc::now().timestamp_millis(), sent);
        for (waiting, date) in batch.iter_mut().zip(&dates) {
            waiting.document.append(cstr!("date"), bson::DateTime::from_millis(*date));
        }
        let documents = batch.iter().map(|waiting| &waiting.document);
        // Unordered: one that is refused does not hold back those behind it.
        let collection = self.deployment.messages();
        let inserting = collection.insert_many(documents).ordered(false);
        let inserted = match timeout(Duration::from_secs(BATCH_SECS_MAX), inserting).await {
            Ok(inserted) => inserted.map(drop).map_err(Failure::of),
            Err(_) => Err(Failure::whole(format!("no answer within {BATCH_SECS_MAX} s"))),
        };
        let failure = inserted.err().unwrap_or_default();
        if let Some(reason) = &failure.rest {
            self.report(batch.len(), reason);
        }
        let stored = |date: &i64| Outcome::Stored(DateTime::from_timestamp_millis(*date).unwrap_or_default());
        let mut outcomes: Vec<Outcome> = match failure.rest {
            Some(_) => vec![Outcome::Unknown; batch.len()],
            None => dates.iter().map(stored).collect(),
        };
        for error in failure.single {
            if let Some(outcome) = outcomes.get_mut(error.index) {
                *outcome = self.outcome_of(&error);
            }
        }
        for (waiting, outcome) in batch.into_iter().zip(outcomes) {
            // Whoever does not wait any longer was told that the outcome is unknown.
            let _ = waiting.outcome.send(outcome);
        }
    }

    fn outcome_of(&self, error: &IndexedWriteError) -> Outcome {
        match error.code {
            // A duplicate key is that of `_id`, or of an index that somebody else made.
            11000 if error.message.contains("index: _id_") => Outcome::IdIsTaken,
            11000 => Outcome::Refused("a unique index of the collection has these values already"),
            121 => Outcome::Refused("the collection's validator does not accept it"),
            code => {
                self.report(1, &format!("{} (code {code})", error.message));
                Outcome::Unknown
            }
        }
    }

    fn report(&self, messages: usize, reason: &str) {
        if let Some(count) = self.failures.count() {
            warn!(
                "{messages} messages may not be stored, and their senders are told so ({count} such cases so far): {reason}"
            );
        }
    }
}

fn sender_of(document: &RawDocument) -> &str {
    document.get_str("sender").unwrap_or_default()
}

fn id_of(document: &RawDocument) -> ObjectId {
    document.get_object_id("_id").unwrap_or_default()
}

/// What went wrong with a batch.
#[derive(Debug, Default)]
struct Failure {
    /// With single messages of it.
    single: Vec<IndexedWriteError>,
    /// With all the others: why they are not known to be durable.
    rest: Option<String>,
}

impl Failure {
    fn whole(reason: String) -> Self {
        Self { single: Vec::new(), rest: Some(reason) }
    }

    fn of(error: Error) -> Self {
        match *error.kind {
            ErrorKind::InsertMany(failed) => Self {
                single: failed.write_errors.unwrap_or_default(),
                rest: failed.write_concern_error.map(|error| format!("{} (code {})", error.message, error.code)),
            },
            _ => Self::whole(sentence_of(&error)),
        }
    }
}
