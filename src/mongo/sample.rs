//! A look at what stands in the collection when the server starts: one whose documents have another shape is an empty chat,
//! and would give no hint why.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{bson::doc, error::Error};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    broken::fault_in,
    connect::{Deployment, sentence_of},
    document::decode,
    pipeline::projection,
};

/// How many documents are looked at, the newest by `_id`, and how long that may take, in seconds. Of each no more is read
/// than twenty kilobytes: see `projection`.
const DOCUMENTS_MAX: u32 = 100;
const LOOK_SECS_MAX: u64 = 2;

/// What was seen.
struct Sample {
    documents: usize,
    broken: usize,
    /// Of the first that is no message.
    fault: Option<String>,
}

impl Deployment {
    /// Logs how many of the newest documents are no messages, if any are. Nothing hangs on it, so it does not fail.
    pub async fn look_at_documents(&self) {
        let Ok(looked) = timeout(Duration::from_secs(2 * LOOK_SECS_MAX), self.sample()).await else {
            return;
        };
        match looked {
            Ok(Sample { documents, broken, fault: Some(fault) }) => warn!(
                "{broken} of the newest {documents} documents in {} are no messages, and are not shown (first: {fault}); see docs/data-contract.md",
                self.namespace()
            ),
            Ok(_) => {}
            Err(error) => info!("the newest documents could not be looked at: {}", sentence_of(&error)),
        }
    }

    async fn sample(&self) -> Result<Sample, Error> {
        let messages = self.messages();
        let find = messages.find(doc! {}).sort(doc! { "_id": -1 }).limit(i64::from(DOCUMENTS_MAX));
        let find = find.batch_size(DOCUMENTS_MAX).projection(projection());
        let mut found = find.max_time(Duration::from_secs(LOOK_SECS_MAX)).await?;
        let mut sample = Sample { documents: 0, broken: 0, fault: None };
        while let Some(document) = found.try_next().await? {
            sample.documents += 1;
            if let Err(reason) = decode(&document) {
                sample.broken += 1;
                sample
                    .fault
                    .get_or_insert_with(|| fault_in(document.get("_id").ok().flatten(), Some(&*document), reason));
            }
        }
        Ok(sample)
    }
}
