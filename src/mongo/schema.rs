//! The collection: made with everything that the contract asks for, or found as it is.

use std::time::Duration;

use mongodb::{
    IndexModel,
    bson::{Document, doc, spec::BinarySubtype},
    error::{Error, ErrorKind},
    options::IndexOptions,
};
use tokio::time::timeout;
use tracing::warn;

use super::connect::{Deployment, sentence_of};
use crate::message::{CONTENT_CHARS_MAX, NAME_CHARS_MAX};

/// What may be done to the collection, and what to change on one that somebody else made.
#[derive(Debug, Clone, Copy, Default)]
pub struct SchemaOptions {
    /// Nothing may: it is taken as it is.
    pub read_only: bool,
    /// Put the validator on it.
    pub validator: bool,
    /// Enable pre- and post-images on it.
    pub pre_images: bool,
    /// Let MongoDB delete what is older than so many days. See `retention`.
    pub keep_days: Option<u64>,
}

/// The collection could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A command failed.
    #[error(
        "the collection {collection} could not be made ready while {step}: {reason}. The user of MONGODB_URI needs the role readWrite on its database (and dbAdmin for --validator, --pre-images, and another --keep-days than before)"
    )]
    Refused {
        /// `database.collection`.
        collection: String,
        /// What was being done.
        step: &'static str,
        /// MongoDB's words.
        reason: String,
    },
    /// MongoDB does not answer.
    #[error(
        "MongoDB did not say within {secs} s what the collection {collection} is; check that it is not overloaded or stopped"
    )]
    Silent {
        /// `database.collection`.
        collection: String,
        /// The deadline.
        secs: u64,
    },
    /// An index of an old and large collection takes long; starting without it would make every page slow.
    #[error("the indexes of {collection} were not built within {secs} s. They go on being built; start again later")]
    Slow {
        /// `database.collection`.
        collection: String,
        /// The deadline.
        secs: u64,
    },
}

/// What was found, for decisions of the change stream.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The collection's UUID: a dropped and recreated one has another.
    pub(super) uuid: Vec<u8>,
    /// Whether events carry what the document was before, and exactly what it was after.
    pub(super) images: bool,
}

/// How long finding, making or changing the collection may take, in seconds. It takes milliseconds, but waits for the
/// majority and for other programs' locks.
const COLLECTION_SECS_MAX: u64 = 30;
/// How long building all indexes may take, in seconds. On a new collection it takes milliseconds.
const INDEX_SECS_MAX: u64 = 600;

impl Deployment {
    /// Makes the collection, or adds to the one that is there what the [`SchemaOptions`] ask for. Indexes always, unless
    /// nothing may be changed.
    ///
    /// # Errors
    /// When MongoDB refuses a step or does not answer, or building the indexes takes more than ten minutes.
    pub async fn prepare_collection(&self) -> Result<(), SchemaError> {
        let silent = || SchemaError::Silent { collection: self.namespace(), secs: COLLECTION_SECS_MAX };
        let in_time = Duration::from_secs(COLLECTION_SECS_MAX);
        if self.schema.read_only {
            return timeout(in_time, self.look_at_indexes()).await.unwrap_or_else(|_| Err(silent()));
        }
        timeout(in_time, self.make_or_change(self.schema)).await.unwrap_or_else(|_| Err(silent()))?;
        self.build_indexes().await?;
        timeout(in_time, self.prepare_retention()).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Says which indexes are missing where none may be built: everything works without them, and slowly.
    async fn look_at_indexes(&self) -> Result<(), SchemaError> {
        let found = self.indexes_found().await.map_err(|error| self.refused("looking at its indexes", &error))?;
        let is_there =
            |key: &Document| found.iter().any(|index| index.get_document("key").is_ok_and(|found| found == key));
        let missing = indexes().into_iter().filter(|index| !is_there(&index.keys)).count();
        if missing > 0 {
            warn!(
                "{missing} of the indexes of {} are missing, so that reading it is slow; READ_ONLY builds none: let a server that may write start on it once",
                self.namespace()
            );
        }
        Ok(())
    }

    /// The collection's indexes as MongoDB describes them; none when there is no collection.
    pub(super) async fn indexes_found(&self) -> Result<Vec<Document>, Error> {
        // MongoDB has 64 for one collection at most, so one answer has them all.
        let command = doc! { "listIndexes": &*self.collection, "cursor": { "batchSize": 1_000 } };
        let reply = match self.requests().run_command(command).await {
            // 26 NamespaceNotFound.
            Err(error) if has_code(&error, &[26]) => return Ok(Vec::new()),
            reply => reply?,
        };
        let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found = found.map(Vec::as_slice).unwrap_or_default();
        Ok(found.iter().filter_map(|index| index.as_document().cloned()).collect())
    }

    async fn make_or_change(&self, options: SchemaOptions) -> Result<(), SchemaError> {
        let refused = |step| move |error: Error| self.refused(step, &error);
        let found = self.find_collection().await.map_err(refused("looking for it"))?;
        if found.is_none() {
            self.create().await.map_err(refused("creating it"))?;
        } else {
            let mut changes = Document::new();
            if options.validator {
                changes.extend(validation());
            }
            if options.pre_images {
                changes.insert("changeStreamPreAndPostImages", doc! { "enabled": true });
            }
            if !changes.is_empty() {
                let mut command = doc! { "collMod": &*self.collection };
                command.extend(changes);
                self.requests().run_command(command).await.map_err(refused("changing its options"))?;
            }
        }
        Ok(())
    }

    /// Builds the indexes of the collection, if there is one and it may be changed.
    ///
    /// # Errors
    /// As [`Self::prepare_collection`].
    pub async fn prepare_indexes(&self) -> Result<(), SchemaError> {
        let found = self.find_collection().await.map_err(|error| self.refused("looking for it", &error))?;
        if found.is_none() || self.schema.read_only {
            return Ok(());
        }
        self.build_indexes().await?;
        self.prepare_retention().await
    }

    async fn build_indexes(&self) -> Result<(), SchemaError> {
        let collection = self.requests().collection::<Document>(&self.collection);
        let building = async {
            for index in indexes() {
                match collection.create_index(index).await {
                    // 85 IndexOptionsConflict, 86 IndexKeySpecsConflict: an index like it is there under another name.
                    Err(error) if has_code(&error, &[85, 86]) => {
                        warn!("an index was not built, as there is one like it: {}", sentence_of(&error));
                    }
                    built => drop(built.map_err(|error| self.refused("building its indexes", &error))?),
                }
            }
            Ok(())
        };
        let slow = SchemaError::Slow { collection: self.namespace(), secs: INDEX_SECS_MAX };
        timeout(Duration::from_secs(INDEX_SECS_MAX), building).await.unwrap_or(Err(slow))
    }

    async fn create(&self) -> Result<(), Error> {
        let mut command = doc! {
            "create": &*self.collection,
            "changeStreamPreAndPostImages": { "enabled": true },
        };
        command.extend(validation());
        match self.requests().run_command(command).await {
            // 48 NamespaceExists: another server process made it just now, in the same way.
            Err(error) if has_code(&error, &[48]) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// What the collection is now; `None` when there is none.
    pub(super) async fn find_collection(&self) -> Result<Option<Found>, Error> {
        let command = doc! {
            "listCollections": 1,
            "filter": { "name": &*self.collection },
            "cursor": {},
        };
        let reply = self.streams().run_command(command).await?;
        let first = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let Some(found) = first.ok().and_then(|batch| batch.first()).and_then(|first| first.as_document()) else {
            return Ok(None);
        };
        let uuid = found.get_document("info").and_then(|info| info.get_binary_generic_or_uuid("uuid"));
        let images = found
            .get_document("options")
            .and_then(|options| options.get_document("changeStreamPreAndPostImages"))
            .and_then(|images| images.get_bool("enabled"));
        Ok(Some(Found { uuid: uuid.unwrap_or_default(), images: images.unwrap_or(false) }))
    }

    pub(super) fn namespace(&self) -> String {
        format!("{}.{}", self.database(), self.collection)
    }

    pub(super) fn refused(&self, step: &'static str, error: &Error) -> SchemaError {
        SchemaError::Refused { collection: self.namespace(), step, reason: sentence_of(error) }
    }
}

pub(super) fn has_code(error: &Error, codes: &[i32]) -> bool {
    matches!(&*error.kind, ErrorKind::Command(command) if codes.contains(&command.code))
}

/// Reads the UUID of a collection, whose binary subtype is not the generic one.
trait GetUuid {
    fn get_binary_generic_or_uuid(&self, key: &str) -> Result<Vec<u8>, mongodb::bson::error::Error>;
}

impl GetUuid for Document {
    fn get_binary_generic_or_uuid(&self, key: &str) -> Result<Vec<u8>, mongodb::bson::error::Error> {
        match self.get(key) {
            Some(mongodb::bson::Bson::Binary(binary)) if binary.subtype == BinarySubtype::Uuid => {
                Ok(binary.bytes.clone())
            }
            _ => self.get_binary_generic(key).cloned(),
        }
    }
}

/// The contract as far as MongoDB can state it; normal form it can not. `maxLength` counts characters.
fn validation() -> Document {
    let name = || doc! { "bsonType": ["string", "null"], "maxLength": NAME_CHARS_MAX as i32 };
    let (first, last) = date_range();
    doc! {
        "validator": {
            "$jsonSchema": {
                "bsonType": "object",
                "required": ["content", "sender"],
                "properties": {
                    "content": { "bsonType": "string", "minLength": 1, "maxLength": CONTENT_CHARS_MAX as i32 },
                    "sender": { "bsonType": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX as i32 },
                    "recipient": name(),
                    "room": name(),
                    "date": { "bsonType": ["date", "null"] },
                },
            },
            // Without a date the time comes from the ObjectId, so one of them must be there.
            "$or": [
                { "date": { "$gte": first, "$lte": last } },
                { "date": null, "_id": { "$type": "objectId" } },
            ],
        },
        "validationLevel": "strict",
        "validationAction": "error",
    }
}

/// The first and the last date that the contract allows: the years 1 to 9999.
pub(super) fn date_range() -> (mongodb::bson::DateTime, mongodb::bson::DateTime) {
    (
        mongodb::bson::DateTime::from_millis(-62_135_596_800_000),
        mongodb::bson::DateTime::from_millis(253_402_300_799_999),
    )
}

/// "Nobody" as a recipient: what a message of a room has. Also the filter of the index for rooms, so that a room
/// behind many newer direct messages is still read from an index alone.
pub(super) fn to_nobody() -> Document {
    doc! { "recipient": { "$in": [null, ""] } }
}

/// What every direct message has; the filter of the indexes for inboxes.
pub(super) fn to_somebody() -> Document {
    doc! { "recipient": { "$gt": "" } }
}

/// The key of the index that serves everything.
pub(super) fn all_key() -> Document {
    doc! { "date": -1, "_id": -1 }
}

/// The key of the index that serves rooms. As `date: null` is one value in it, it serves documents without date too.
pub(super) fn room_key() -> Document {
    doc! { "room": 1, "date": -1, "_id": -1 }
}

/// The key of the index that serves the conversation of two people.
pub(super) fn conversation_key() -> Document {
    doc! { "sender": 1, "recipient": 1, "date": -1, "_id": -1 }
}

/// A message of a room costs two of these, a direct message four.
fn indexes() -> Vec<IndexModel> {
    let index = |name: &str, keys: Document, filter: Option<Document>| {
        let mut options = IndexOptions::builder().name(name.to_owned()).build();
        options.partial_filter_expression = filter;
        IndexModel::builder().keys(keys).options(options).build()
    };
    vec![
        index("corriente_all", all_key(), None),
        index("corriente_room", room_key(), Some(to_nobody())),
        index("corriente_conversation", conversation_key(), Some(to_somebody())),
        index("corriente_sent", doc! { "sender": 1, "date": -1, "_id": -1 }, Some(to_somebody())),
        index("corriente_received", doc! { "recipient": 1, "date": -1, "_id": -1 }, Some(to_somebody())),
    ]
}
