//! The only writer. An insert is acknowledged when it is on the disks of a majority, and its outcome is known or
//! said to be unknown.

use std::{sync::Arc, time::Duration};

use mongodb::bson::{Bson, doc, oid::ObjectId};
use tokio::{sync::oneshot, time::timeout};
use tracing::warn;

use super::{
    connect::{Deployment, sentence_of},
    document::{decode, encode},
    group_commit::{self, Committer, Full, Outcome, Queue, QueueLimits},
    id::bson_of,
    pipeline::projection,
};
use crate::{
    message::{Message, MessageId, NewMessage},
    telemetry::{InsertLabels, Metrics, show_from_start},
};

/// How long an insert may take, in seconds, before its caller is told that the outcome is unknown. An election of a set
/// with MongoDB's defaults takes longer than anybody wants to look at a form.
const INSERT_SECS_MAX: u64 = 5;

/// How an insert can end, as it is counted.
const OUTCOMES: [&str; 7] = ["created", "repeated", "conflict", "refused", "read only", "overloaded", "unknown"];

/// Inserts messages. Cheap to clone; all clones share one queue.
#[derive(Debug, Clone)]
pub struct Inserter {
    shared: Arc<Shared>,
    source: &'static str,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    deployment: Deployment,
    metrics: Metrics,
}

/// A message that is durable.
#[derive(Debug, Clone)]
pub struct Inserted {
    /// As it is stored.
    pub message: Message,
    /// `false` when it was there already: the call was a retry with the same id.
    pub is_new: bool,
}

/// Why a message was not inserted, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// Another message has the id. Which one is not said: ids may be guessed.
    #[error("another message has the id {id} already; choose a new id for a new message")]
    Conflict {
        /// The id.
        id: MessageId,
    },
    /// The collection has a rule of its own that the message breaks.
    #[error("MongoDB refuses the message: {reason}")]
    Refused {
        /// MongoDB's words.
        reason: String,
    },
    /// The operator wants no messages here.
    #[error("this server is for reading only, so no message can be sent through it")]
    ReadOnly,
    /// Too many messages wait for MongoDB already. This one was not sent to it.
    #[error("more messages are sent than MongoDB stores; this one was not stored: send it again in a moment")]
    Overloaded,
    /// The message may or may not be stored.
    #[error(
        "MongoDB did not confirm the message in time, so it may or may not be stored; send it again with the id {id}, which can not store it twice"
    )]
    Unknown {
        /// The id to use in the retry, also when the inserter chose it.
        id: MessageId,
    },
}

impl Inserter {
    /// An inserter into the deployment's collection, and the task that must run for it.
    pub fn new(deployment: &Deployment, limits: QueueLimits, metrics: Metrics) -> (Self, Committer) {
        let (queue, committer) = group_commit::open(deployment, limits, metrics.clone());
        let shared = Arc::new(Shared { queue, deployment: deployment.clone(), metrics });
        (Self { shared, source: "other" }, committer)
    }

    /// The same inserter, whose inserts are counted as coming from `source`.
    pub fn for_source(&self, source: &'static str) -> Self {
        let labels = OUTCOMES.map(|outcome| InsertLabels { source, outcome });
        show_from_start(&self.shared.metrics.inserts, labels);
        Self { source, ..self.clone() }
    }

    /// Inserts one message, and returns when a majority has it on disk or after five seconds.
    ///
    /// # Errors
    /// See [`InsertError`]; after [`InsertError::Unknown`] a retry with the same id is safe.
    pub async fn insert(&self, new: NewMessage) -> Result<Inserted, InsertError> {
        self.begin(new).await
    }

    /// The same. Messages are inserted in the order of these calls, whenever their outcomes are waited for. One whose
    /// outcome is dropped may not be inserted.
    pub fn begin(&self, new: NewMessage) -> impl Future<Output = Result<Inserted, InsertError>> + Send + use<> {
        let id = match &new.id {
            Some(id) => id.clone(),
            None => MessageId::from_text_form(ObjectId::new().to_hex()),
        };
        let joined = self.join(&new, &id);
        let inserter = self.clone();
        async move {
            let attempt = async {
                // Without an outcome the server stops.
                let outcome = joined?.await.unwrap_or(Outcome::Unknown);
                inserter.meaning_of(outcome, new, &id).await
            };
            let inserted = timeout(Duration::from_secs(INSERT_SECS_MAX), attempt).await;
            let inserted = inserted.unwrap_or_else(|_| Err(InsertError::Unknown { id: id.clone() }));
            inserter.count(&inserted);
            inserted
        }
    }

    fn join(&self, new: &NewMessage, id: &MessageId) -> Result<oneshot::Receiver<Outcome>, InsertError> {
        if self.is_read_only() {
            return Err(InsertError::ReadOnly);
        }
        let document = encode(new, id).ok_or_else(|| InsertError::Conflict { id: id.clone() })?;
        self.shared.queue.join(document).map_err(|Full| InsertError::Overloaded)
    }

    /// Whether every message is refused.
    pub fn is_read_only(&self) -> bool {
        self.shared.deployment.schema.read_only
    }

    fn count(&self, outcome: &Result<Inserted, InsertError>) {
        let [created, repeated, conflict, refused, read_only, overloaded, unknown] = OUTCOMES;
        let word = match outcome {
            Ok(inserted) if inserted.is_new => created,
            Ok(_) => repeated,
            Err(InsertError::Conflict { .. }) => conflict,
            Err(InsertError::Refused { .. }) => refused,
            Err(InsertError::ReadOnly) => read_only,
            Err(InsertError::Overloaded) => overloaded,
            Err(InsertError::Unknown { .. }) => unknown,
        };
        let labels = InsertLabels { source: self.source, outcome: word };
        self.shared.metrics.inserts.get_or_create(&labels).inc();
    }

    async fn meaning_of(&self, outcome: Outcome, new: NewMessage, id: &MessageId) -> Result<Inserted, InsertError> {
        match outcome {
            Outcome::Stored(date) => {
                let NewMessage { content, sender, to, .. } = new;
                Ok(Inserted { message: Message { id: id.clone(), content, sender, to, date }, is_new: true })
            }
            Outcome::IdIsTaken => Box::pin(self.compare_with_stored(&new, id)).await,
            Outcome::Refused(reason) => Err(InsertError::Refused { reason: reason.into() }),
            Outcome::Unknown => Err(InsertError::Unknown { id: id.clone() }),
        }
    }

    /// The id is taken: by this very message (a retry), or by another one?
    async fn compare_with_stored(&self, new: &NewMessage, id: &MessageId) -> Result<Inserted, InsertError> {
        let filter = doc! { "_id": bson_of(id.as_str()).unwrap_or(Bson::Null) };
        let unknown = |reason: &str| {
            warn!("a message whose id is taken could not be compared with the stored one: {reason}");
            InsertError::Unknown { id: id.clone() }
        };
        let collection = self.shared.deployment.messages();
        let stored = collection.find_one(filter).projection(projection()).await;
        let stored = stored.map_err(|error| unknown(&sentence_of(&error)))?;
        // The one that took the id may not be on a majority yet, or was deleted meanwhile.
        let stored = stored.ok_or_else(|| unknown("it is not readable yet"))?;
        match decode(&stored) {
            Ok(message) if new.is_same_as(&message) => Ok(Inserted { message, is_new: false }),
            _ => Err(InsertError::Conflict { id: id.clone() }),
        }
    }
}
