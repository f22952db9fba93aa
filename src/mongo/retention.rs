//! Lets go of what is old, where the operator says after how many days.
//!
//! MongoDB does it, with a TTL index on `date`: it looks once a minute. A message without a date, whose time is in its
//! ObjectId, is in no such index; those are swept away by the servers, once an hour, in slices. Either way it is a delete
//! like anybody's: the change stream tells it, and so every client.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{
    IndexModel,
    bson::{Bson, Document, doc, oid::ObjectId},
    error::Error,
    options::{Hint, IndexOptions},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    connect::{Deployment, sentence_of},
    schema::{SchemaError, all_key, has_code},
};

/// The name of our index.
const INDEX: &str = "corriente_ttl";
const DAY_SECS: u64 = 24 * 60 * 60;
/// How often messages without a date are swept away, in seconds. A day is the smallest unit of what is kept.
const SWEEP_EVERY_SECS: u64 = 60 * 60;
/// How many of them go at once, and how long the database has for others between two slices, in milliseconds.
const SLICE_DOCUMENTS: usize = 1_000;
const SLICE_PAUSE_MILLIS: u64 = 200;

impl Deployment {
    /// Makes the TTL index or changes its time. Without a number of days one that is there stays, and the log says so.
    pub(super) async fn prepare_retention(&self) -> Result<(), SchemaError> {
        let found = self.ttl_index().await.map_err(|error| self.refused("looking at its indexes", &error))?;
        let Some(days) = self.schema.keep_days else {
            if let Some((name, Some(secs))) = found {
                info!(
                    "MongoDB deletes messages of {} that are older than {} days: KEEP_DAYS is unset, and the index {name} of an earlier setting stays (dropIndex ends that)",
                    self.namespace(),
                    secs / DAY_SECS as i64
                );
            }
            return Ok(());
        };
        let secs = (days * DAY_SECS) as i64;
        let done = match found {
            Some((_, Some(known))) if known == secs => return Ok(()),
            Some((name, _)) => self.change_ttl(&name, secs).await,
            None => match self.make_ttl_index(secs).await {
                // 85 IndexOptionsConflict, 86 IndexKeySpecsConflict: another server made it just now, with another time.
                Err(error) if has_code(&error, &[85, 86]) => self.change_ttl(INDEX, secs).await,
                made => made,
            },
        };
        done.map_err(|error| self.refused("setting how long messages are kept", &error))?;
        info!("MongoDB deletes messages of {} that are older than {days} days", self.namespace());
        Ok(())
    }

    /// The index by date alone, which may be somebody else's: its name, and its seconds if it is one that deletes.
    async fn ttl_index(&self) -> Result<Option<(String, Option<i64>)>, Error> {
        let is_by_date = |index: &&Document| {
            index.get_document("key").is_ok_and(|key| key.len() == 1 && key.contains_key("date"))
                && !index.contains_key("partialFilterExpression")
        };
        let indexes = self.indexes_found().await?;
        Ok(indexes.iter().find(is_by_date).map(|index| {
            let secs = match index.get("expireAfterSeconds") {
                Some(Bson::Int32(secs)) => Some(i64::from(*secs)),
                Some(Bson::Int64(secs)) => Some(*secs),
                Some(Bson::Double(secs)) => Some(*secs as i64),
                _ => None,
            };
            (index.get_str("name").unwrap_or_default().to_owned(), secs)
        }))
    }

    async fn make_ttl_index(&self, secs: i64) -> Result<(), Error> {
        let mut options = IndexOptions::builder().name(INDEX.to_owned()).build();
        options.expire_after = Some(Duration::from_secs(secs.unsigned_abs()));
        let index = IndexModel::builder().keys(doc! { "date": 1 }).options(options).build();
        self.requests().collection::<Document>(&self.collection).create_index(index).await.map(drop)
    }

    /// Also makes an index that deletes out of one that does not.
    async fn change_ttl(&self, name: &str, secs: i64) -> Result<(), Error> {
        let index = doc! { "name": name, "expireAfterSeconds": secs };
        self.requests().run_command(doc! { "collMod": &*self.collection, "index": index }).await.map(drop)
    }
}

/// Deletes what is old and has no date.
#[derive(Debug)]
pub struct Sweeper {
    deployment: Deployment,
    keep: Duration,
}

impl Sweeper {
    /// A sweeper for the deployment's collection. `None` when everything is kept.
    pub fn new(deployment: &Deployment) -> Option<Self> {
        let days = deployment.schema.keep_days?;
        Some(Self { deployment: deployment.clone(), keep: Duration::from_secs(days * DAY_SECS) })
    }

    /// Sweeps at once, and then every hour until `stop`. It may be broken off at any time.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(SWEEP_EVERY_SECS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sweeping = async {
            loop {
                ticks.tick().await;
                match self.sweep().await {
                    Ok(0) => {}
                    Ok(count) => info!("{count} messages without a date, older than is kept, were deleted"),
                    Err(error) => {
                        warn!(
                            "messages without a date could not be deleted, next try in an hour: {}",
                            sentence_of(&error)
                        );
                    }
                }
            }
        };
        stop.run_until_cancelled(sweeping).await;
    }

    async fn sweep(&self) -> Result<u64, Error> {
        let messages = self.deployment.messages();
        let mut count = 0;
        loop {
            // An index has them in this order: only what goes is looked at.
            let old = doc! { "date": null, "_id": { "$lt": oldest_kept(self.keep) } };
            let find = messages.find(old).sort(doc! { "date": -1, "_id": -1 }).limit(SLICE_DOCUMENTS as i64);
            let find = find.projection(doc! { "_id": 1 }).hint(Hint::Keys(all_key()));
            let found: Vec<_> = find.await?.try_collect().await?;
            let ids: Vec<ObjectId> = found.iter().filter_map(|found| found.get_object_id("_id").ok()).collect();
            // Whoever was given a date meanwhile stays.
            let deleted = messages.delete_many(doc! { "_id": { "$in": &ids }, "date": null }).await?;
            count += deleted.deleted_count;
            if ids.len() < SLICE_DOCUMENTS {
                return Ok(count);
            }
            sleep(Duration::from_millis(SLICE_PAUSE_MILLIS)).await;
        }
    }
}

/// The first id of the time until which messages are kept.
fn oldest_kept(keep: Duration) -> ObjectId {
    let now = mongodb::bson::DateTime::now().timestamp_millis() / 1_000;
    let secs = u32::try_from(now - keep.as_secs() as i64).unwrap_or_default();
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&secs.to_be_bytes());
    ObjectId::from_bytes(bytes)
}
