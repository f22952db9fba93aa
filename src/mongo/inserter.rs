//! The only writer. An insert is acknowledged when it is on the disks of a majority, and its outcome is known or
//! said to be unknown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId},
    error::{Error, ErrorKind, WriteFailure},
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    connect::{Deployment, sentence_of},
    document::{decode, encode},
    id::bson_of,
    pipeline::projection,
};
use crate::{
    message::{Message, MessageId, NewMessage},
    telemetry::{InsertLabels, Metrics},
};

/// How long an insert may take before its caller is told that the outcome is unknown. An election of a set with
/// MongoDB's defaults takes longer than anybody wants to look at a form.
const INSERT_SECS_MAX: u64 = 5;

/// Inserts messages. Cheap to clone; all clones share one clock.
#[derive(Debug, Clone)]
pub struct Inserter {
    collection: Collection<Document>,
    stored: Collection<RawDocumentBuf>,
    newest_millis: Arc<AtomicI64>,
    source: &'static str,
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
    /// The message may or may not be stored.
    #[error(
        "MongoDB did not confirm the message in time, so it may or may not be stored; send it again with the id {id}, which can not store it twice"
    )]
    Unknown {
        /// The id to use in the retry, also when the inserter chose it.
        id: MessageId,
        /// For the log.
        reason: String,
    },
}

impl Inserter {
    /// An inserter into the deployment's collection.
    pub fn new(deployment: &Deployment, metrics: Metrics) -> Self {
        Self {
            collection: deployment.requests.collection(&deployment.collection),
            stored: deployment.requests.collection(&deployment.collection),
            newest_millis: Arc::default(),
            source: "other",
            metrics,
        }
    }

    /// The same inserter, whose inserts are counted as coming from `source`.
    pub fn for_source(&self, source: &'static str) -> Self {
        Self { source, ..self.clone() }
    }

    /// Inserts one message, and returns when a majority has it on disk or after five seconds.
    ///
    /// # Errors
    /// See [`InsertError`]; after [`InsertError::Unknown`] a retry with the same id is safe.
    pub async fn insert(&self, new: NewMessage) -> Result<Inserted, InsertError> {
        let id = match &new.id {
            Some(id) => id.clone(),
            None => MessageId::from_text_form(ObjectId::new().to_hex()),
        };
        let unknown = |reason: String| InsertError::Unknown { id: id.clone(), reason };
        let attempt = timeout(Duration::from_secs(INSERT_SECS_MAX), self.attempt(&new, &id));
        let outcome = attempt.await.unwrap_or_else(|_| Err(unknown(format!("no answer within {INSERT_SECS_MAX} s"))));
        self.report(&outcome);
        outcome
    }

    /// Counts the outcome, and logs the one that is the database's fault.
    fn report(&self, outcome: &Result<Inserted, InsertError>) {
        let word = match outcome {
            Ok(inserted) if inserted.is_new => "created",
            Ok(_) => "repeated",
            Err(InsertError::Conflict { .. }) => "conflict",
            Err(InsertError::Refused { .. }) => "refused",
            Err(InsertError::Unknown { reason, .. }) => {
                warn!("an insert was not confirmed: {reason}");
                "unknown"
            }
        };
        let labels = InsertLabels { source: self.source, outcome: word };
        self.metrics.inserts.get_or_create(&labels).inc();
    }

    async fn attempt(&self, new: &NewMessage, id: &MessageId) -> Result<Inserted, InsertError> {
        let date = self.next_date();
        let unknown = |reason: String| InsertError::Unknown { id: id.clone(), reason };
        let document = encode(new, id, date).ok_or_else(|| InsertError::Conflict { id: id.clone() })?;
        match self.collection.insert_one(document).await {
            Ok(_) => Ok(Inserted {
                message: Message {
                    id: id.clone(),
                    content: new.content.clone(),
                    sender: new.sender.clone(),
                    to: new.to.clone(),
                    date,
                },
                is_new: true,
            }),
            Err(error) => match write_error_code(&error) {
                Some(11000) if !is_about_id(&error) => Err(InsertError::Refused {
                    reason: "a unique index of the collection has these values already".into(),
                }),
                Some(11000) => self.compare_with_stored(new, id).await,
                Some(121) => {
                    Err(InsertError::Refused { reason: "the collection's validator does not accept it".into() })
                }
                _ => Err(unknown(sentence_of(&error))),
            },
        }
    }

    /// The id is taken: by this very message (a retry), or by another one?
    async fn compare_with_stored(&self, new: &NewMessage, id: &MessageId) -> Result<Inserted, InsertError> {
        let filter = doc! { "_id": bson_of(id.as_str()).unwrap_or(Bson::Null) };
        let unknown = |reason: String| InsertError::Unknown { id: id.clone(), reason };
        let stored = self.stored.find_one(filter).projection(projection()).await;
        let stored = stored.map_err(|error| unknown(sentence_of(&error)))?;
        // The one that took the id may not be on a majority yet, or was deleted meanwhile.
        let stored = stored.ok_or_else(|| unknown("the id is taken, but its message is not readable yet".into()))?;
        match decode(&stored) {
            Ok(message) if new.is_same_as(&message) => Ok(Inserted { message, is_new: false }),
            _ => Err(InsertError::Conflict { id: id.clone() }),
        }
    }

    /// Now, to the millisecond; never earlier than a date given out before, though the wall clock may step back.
    fn next_date(&self) -> DateTime<Utc> {
        let now = Utc::now().timestamp_millis();
        let millis = self.newest_millis.fetch_max(now, Ordering::Relaxed).max(now);
        DateTime::from_timestamp_millis(millis).unwrap_or_default()
    }
}

/// Whether a duplicate key is that of `_id`, and not of an index that somebody else made.
fn is_about_id(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.message.contains("index: _id_"),
        _ => true,
    }
}

fn write_error_code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}
