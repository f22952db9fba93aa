//! What MongoDB is asked for.
//!
//! One pipeline for every stream, because resume tokens are only good for the pipeline that made them: a `$project`
//! of the contract's fields. It also keeps a 16 MB document from breaking the stream, whose reply must fit in 16 MB.

use mongodb::bson::{Document, doc};

use crate::{cursor::ClusterTime, message::CONTENT_CHARS_MAX};

/// Where to begin.
#[derive(Debug, Clone)]
pub enum ResumePoint {
    /// With what comes next.
    Now,
    /// After everything that came with this point.
    After(Resume),
    /// With the changes of this time, of whichever collection there is.
    At(ClusterTime),
}

/// MongoDB's resume token. Good for this pipeline only.
#[derive(Debug, Clone)]
pub struct Resume {
    pub(super) token: Document,
    /// That of the collection that it was given for.
    pub(super) epoch: u32,
}

/// The most bytes of text that there may be in a message: four are the most that a character takes, and the bound of names
/// is generous, as the decoder counts characters.
const CONTENT_BYTES_MAX: i32 = 4 * CONTENT_CHARS_MAX as i32;
const NAME_BYTES_MAX: i32 = 1_024;
/// The most bytes of a document that is no larger than a message: three names, a content, and 1 KiB for the rest.
const MESSAGE_BYTES_MAX: i32 = CONTENT_BYTES_MAX + 4 * NAME_BYTES_MAX;

/// A collection with images says exactly what a document was before and after an event. Without them MongoDB looks
/// up what the document is now.
pub(super) fn pipeline(from: &ResumePoint, images: bool) -> Vec<Document> {
    let mut stream = if images {
        doc! { "fullDocument": "whenAvailable", "fullDocumentBeforeChange": "whenAvailable" }
    } else {
        // Pre-images there may still be.
        doc! { "fullDocument": "updateLookup", "fullDocumentBeforeChange": "whenAvailable" }
    };
    match from {
        ResumePoint::Now => None,
        ResumePoint::After(resume) => stream.insert("resumeAfter", resume.token.clone()),
        ResumePoint::At(time) => stream.insert("startAtOperationTime", super::timestamp(*time)),
    };
    let updated = |field: &str| {
        let path = format!("$updateDescription.updatedFields.{field}");
        let removed = doc! { "$ifNull": ["$updateDescription.removedFields", []] };
        doc! { "$or": [
            { "$ne": [{ "$type": path }, "missing"] },
            { "$in": [field, removed] },
        ] }
    };
    // Of nothing else is it asked.
    let moved = doc! { "$cond": [
        { "$eq": ["$operationType", "update"] },
        { "$or": [updated("room"), updated("recipient"), updated("sender")] },
        "$$REMOVE",
    ] };
    vec![
        doc! { "$changeStream": stream },
        doc! { "$project": {
            "operationType": 1,
            "clusterTime": 1,
            "wallTime": 1,
            "documentKey._id": 1,
            "moved": moved,
            "fullDocument": image("$fullDocument"),
            "fullDocumentBeforeChange": image("$fullDocumentBeforeChange"),
        } },
    ]
}

/// The largest `_id` that is read of a stored document, in bytes of BSON: those that a message may have, and those that a
/// place in a history can spell out, are smaller.
const ID_BYTES_MAX: i32 = 2_048;

/// What is read of a stored document: the contract's fields, as small and as strange as a stream has them, and no `_id` where
/// that is large. So twenty kilobytes are the most that one takes, whatever else stands in it.
pub(super) fn projection() -> Document {
    let mut fields = contract_fields("$$ROOT");
    let bytes = doc! { "$bsonSize": { "id": "$$ROOT._id" } };
    fields.insert("_id", doc! { "$cond": [{ "$lte": [bytes, ID_BYTES_MAX] }, "$$ROOT._id", "$$REMOVE"] });
    fields
}

/// What is read of an image, if there is one. Of a document that is no larger than a message the fields are taken as they
/// are, which most are, and which asks a tenth less of MongoDB than a look at each.
fn image(path: &str) -> Document {
    let fields = ["_id", "content", "sender", "recipient", "room", "date"];
    let as_they_are: Document =
        fields.into_iter().map(|field| (field.to_owned(), format!("{path}.{field}").into())).collect();
    let is_small = doc! { "$lte": [{ "$bsonSize": path }, MESSAGE_BYTES_MAX] };
    let read = doc! { "$cond": [is_small, as_they_are, contract_fields(path)] };
    doc! { "$cond": [{ "$eq": [{ "$type": path }, "object"] }, read, null] }
}

/// The contract's fields of a document, each small or replaced by a value that breaks the contract.
fn contract_fields(path: &str) -> Document {
    let text = |field: &str, bytes_max: i32| guarded_text(&format!("{path}.{field}"), bytes_max);
    doc! {
        "_id": format!("{path}._id"),
        "content": text("content", CONTENT_BYTES_MAX),
        "sender": text("sender", NAME_BYTES_MAX),
        "recipient": text("recipient", NAME_BYTES_MAX),
        "room": text("room", NAME_BYTES_MAX),
        "date": guarded_date(&format!("{path}.date")),
    }
}

fn guarded_text(path: &str, bytes_max: i32) -> Document {
    let short = doc! { "$cond": [{ "$lte": [{ "$strLenBytes": path }, bytes_max] }, path, false] };
    doc! { "$cond": [{ "$eq": [{ "$type": path }, "string"] }, short, absent_or_wrong(path)] }
}

fn guarded_date(path: &str) -> Document {
    doc! { "$cond": [{ "$eq": [{ "$type": path }, "date"] }, path, absent_or_wrong(path)] }
}

/// `null` for an absent value; `false`, which no field of the contract may be, for one of a wrong type.
fn absent_or_wrong(path: &str) -> Document {
    doc! { "$cond": [{ "$in": [{ "$type": path }, ["missing", "null", "undefined"]] }, null, false] }
}
