//! Writers past the server whose messages are inserted together: the least that a server has to do for its publishers.

use mongodb::{Collection, bson::Document};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::publishers::{PAUSE_AFTER_FAILURE, Publisher};

/// The most documents of one insert, as in the server.
const BATCH_DOCUMENTS_MAX: usize = 1_000;

/// A document, and who is told what became of it.
type Waiting = (Document, oneshot::Sender<Result<(), String>>);

/// Where documents wait. Cheap to clone; it ends when the last one is dropped.
#[derive(Clone)]
pub struct Group(mpsc::Sender<Waiting>);

impl Group {
    /// Inserts into `collection` whatever waits, as soon as what was inserted before is back.
    pub fn open(collection: Collection<Document>) -> Self {
        let (waiting, mut waits) = mpsc::channel(BATCH_DOCUMENTS_MAX);
        tokio::spawn(async move {
            let mut batch: Vec<Waiting> = Vec::new();
            while waits.recv_many(&mut batch, BATCH_DOCUMENTS_MAX).await > 0 {
                let inserted = collection.insert_many(batch.iter().map(|(document, _)| document)).ordered(false).await;
                let outcome = inserted.map(drop).map_err(|error| error.kind.to_string());
                for (_, told) in batch.drain(..) {
                    // A publisher that is gone does not ask.
                    let _ = told.send(outcome.clone());
                }
            }
        });
        Self(waiting)
    }

    async fn insert(&self, document: Document) -> Result<(), String> {
        let (tell, told) = oneshot::channel();
        let gone = || "the group is gone".to_owned();
        self.0.send((document, tell)).await.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Writes until the end.
pub async fn publish(mut publisher: Publisher, group: Group) {
    while let Some(stamp) = publisher.next().await {
        match group.insert(publisher.document(&stamp)).await {
            Ok(()) => publisher.records().acknowledged(&stamp),
            Err(kind) => {
                publisher.records().failed(&stamp, kind);
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}
