//! The data contract, applied to whatever stands in the collection: anyone may have written it.
//!
//! Documents are read raw. A strange one is an [`Invalid`] with a reason, never an error that could stop a stream.

use chrono::{DateTime, Datelike, Utc};
use mongodb::bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf, cstr, spec::ElementType};

use super::id::{bson_of, id_of};
use crate::message::{self, Destination, Message, MessageId, NewMessage, RoomName, UserName};

/// Why a document is not a message. The words are metric labels: few, and nothing that users write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// `_id` is missing, unreadable or larger than 256 bytes.
    Id,
    /// `content` is missing, no string, empty or over 4,000 characters.
    Content,
    /// `sender` is missing, no string or not a name in normal form.
    Sender,
    /// `recipient` is neither empty nor a name in normal form.
    Recipient,
    /// `room` is neither empty nor a room name in normal form.
    Room,
    /// `date` is no Date between the years 1 and 9999, or absent beside an `_id` that holds no time.
    Date,
    /// The bytes are not well-formed BSON, or a string is not UTF-8.
    Encoding,
}

impl Invalid {
    /// Every reason, for tables.
    pub const ALL: [Invalid; 7] = [
        Invalid::Id,
        Invalid::Content,
        Invalid::Sender,
        Invalid::Recipient,
        Invalid::Room,
        Invalid::Date,
        Invalid::Encoding,
    ];

    /// The reason as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Invalid::Id => "id",
            Invalid::Content => "content",
            Invalid::Sender => "sender",
            Invalid::Recipient => "recipient",
            Invalid::Room => "room",
            Invalid::Date => "date",
            Invalid::Encoding => "encoding",
        }
    }
}

/// Reads a document as a message.
pub(super) fn decode(document: &RawDocument) -> Result<Message, Invalid> {
    let id_value = field(document, "_id", |_| Invalid::Encoding)?.ok_or(Invalid::Id)?;
    let id = id_of(id_value).ok_or(Invalid::Id)?;
    let content = text(document, "content", Invalid::Content)?.ok_or(Invalid::Content)?;
    message::check_content(content).map_err(|_| Invalid::Content)?;
    let sender = text(document, "sender", Invalid::Sender)?.ok_or(Invalid::Sender)?;
    let sender = UserName::parse(sender).map_err(|_| Invalid::Sender)?;
    let recipient = text(document, "recipient", Invalid::Recipient)?.filter(|name| !name.is_empty());
    let room = text(document, "room", Invalid::Room)?.filter(|name| !name.is_empty());
    // The room of a direct message plays no part, but must be right: what is in the contract holds for all.
    let room = room.map(RoomName::parse).transpose().map_err(|_| Invalid::Room)?;
    let to = match recipient {
        Some(name) => Destination::Direct(UserName::parse(name).map_err(|_| Invalid::Recipient)?),
        None => Destination::Room(room.unwrap_or_else(RoomName::general)),
    };
    let date = effective_date(field(document, "date", |_| Invalid::Date)?, id_value).ok_or(Invalid::Date)?;
    Ok(Message { id, content: content.to_owned(), sender, to, date })
}

/// One field; `None` when it is absent. A value that can not be read has the error that `unreadable` makes of its type.
fn field<'a>(
    document: &'a RawDocument,
    name: &str,
    unreadable: impl Fn(ElementType) -> Invalid,
) -> Result<Option<RawBsonRef<'a>>, Invalid> {
    for element in document.iter_elements() {
        let element = element.map_err(|_| Invalid::Encoding)?;
        if element.key().as_str() == name {
            return element.value().map(Some).map_err(|_| unreadable(element.element_type()));
        }
    }
    Ok(None)
}

/// A string; `None` when the field is absent or null.
fn text<'a>(document: &'a RawDocument, name: &str, wrong: Invalid) -> Result<Option<&'a str>, Invalid> {
    let unreadable = |kind| if kind == ElementType::String { Invalid::Encoding } else { wrong };
    match field(document, name, unreadable)? {
        None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => Ok(None),
        Some(RawBsonRef::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong),
    }
}

/// The field `date`, else the time in an ObjectId `_id`.
fn effective_date(date: Option<RawBsonRef<'_>>, id: RawBsonRef<'_>) -> Option<DateTime<Utc>> {
    let millis = match date {
        Some(RawBsonRef::DateTime(date)) => date.timestamp_millis(),
        None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => match id {
            RawBsonRef::ObjectId(id) => id.timestamp().timestamp_millis(),
            _ => return None,
        },
        Some(_) => return None,
    };
    let date = DateTime::from_timestamp_millis(millis)?;
    (1..=9999).contains(&date.year()).then_some(date)
}

/// The document of a new message but its date, which is appended when it leaves. `room` is always written, so that
/// other programs can query it plainly. `None` when the id is none that a client may choose.
pub(super) fn encode(message: &NewMessage, id: &MessageId) -> Option<RawDocumentBuf> {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), RawBson::try_from(bson_of(id.as_str())?).ok()?);
    document.append(cstr!("content"), message.content.as_str());
    document.append(cstr!("sender"), message.sender.as_str());
    match &message.to {
        Destination::Direct(recipient) => document.append(cstr!("recipient"), recipient.as_str()),
        Destination::Room(room) => document.append(cstr!("room"), room.as_str()),
    }
    Some(document)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn decoded(document: Document) -> Result<Message, Invalid> {
        decode(&RawDocumentBuf::try_from(&document).unwrap())
    }

    fn good() -> Document {
        doc! { "_id": ObjectId::from_bytes([1; 12]), "content": "hola", "sender": "Ana", "date": mongodb::bson::DateTime::from_millis(1) }
    }

    fn with(field: &str, value: impl Into<Bson>) -> Document {
        let mut document = good();
        document.insert(field, value);
        document
    }

    #[test]
    fn mongoose_documents_and_extra_fields_are_messages() {
        let mut document = good();
        document.extend(doc! { "__v": 0, "language": 5, "recipient": null, "room": "" });
        assert_eq!(decoded(document).unwrap().to, Destination::Room(RoomName::general()));
    }

    #[test]
    fn a_value_of_another_type_that_can_not_be_read_is_told_as_the_field_that_it_is() {
        for (field, reason) in [
            ("content", Invalid::Content),
            ("sender", Invalid::Sender),
            ("recipient", Invalid::Recipient),
            ("room", Invalid::Room),
            ("date", Invalid::Date),
        ] {
            // The old binary subtype has its length twice.
            let old = Binary { subtype: BinarySubtype::BinaryOld, bytes: b"odd".to_vec() };
            let mut bytes = RawDocumentBuf::try_from(&with(field, old)).unwrap().into_bytes();
            let at = bytes.windows(3).position(|bytes| bytes == b"odd").unwrap();
            bytes[at - 4] = 200;
            assert_eq!(decode(&RawDocumentBuf::from_bytes(bytes).unwrap()), Err(reason), "{field}");
        }
    }

    #[test]
    fn without_a_date_the_object_id_tells_the_time() {
        let mut document = good();
        document.remove("date");
        let date = decoded(document.clone()).unwrap().date;
        assert_eq!(date.timestamp(), 0x0101_0101);
        document.insert("_id", 7);
        assert_eq!(decoded(document), Err(Invalid::Date));
    }

    #[test]
    fn each_broken_rule_has_its_reason() {
        let far = mongodb::bson::DateTime::from_millis(253_402_300_800_000);
        let table = [
            (with("content", 5), Invalid::Content),
            (with("content", ""), Invalid::Content),
            (with("content", "x".repeat(4_001)), Invalid::Content),
            (with("sender", " Ana"), Invalid::Sender),
            (with("sender", Bson::Null), Invalid::Sender),
            (with("recipient", 1.5), Invalid::Recipient),
            (with("room", doc! { "$gt": "" }), Invalid::Room),
            (with("room", ".."), Invalid::Room),
            (with("date", "2026-01-01"), Invalid::Date),
            (with("date", f64::NAN), Invalid::Date),
            (with("date", far), Invalid::Date),
            (with("_id", "x".repeat(2_000)), Invalid::Id),
        ];
        for (document, reason) in table {
            assert_eq!(decoded(document.clone()), Err(reason), "{document:.60}");
        }
    }

    /// A value of any type, of which most are wrong wherever they stand.
    fn value() -> impl Strategy<Value = Bson> {
        prop_oneof![
            ".{0,70}".prop_map(Bson::String),
            any::<i64>().prop_map(|millis| Bson::DateTime(mongodb::bson::DateTime::from_millis(millis))),
            any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(ObjectId::from_bytes(id))),
            any::<f64>().prop_map(Bson::Double),
            any::<i32>().prop_map(Bson::Int32),
            any::<i64>().prop_map(Bson::Int64),
            any::<bool>().prop_map(Bson::Boolean),
            Just(Bson::Null),
            Just(Bson::Undefined),
            vec(".{0,9}".prop_map(Bson::String), 0..4).prop_map(Bson::Array),
            Just(Bson::Document(doc! { "$gt": "" })),
        ]
    }

    fn document() -> impl Strategy<Value = Document> {
        let names = ["_id", "content", "sender", "recipient", "room", "date", "__v"];
        vec((prop::sample::select(names.to_vec()), value()), 0..9).prop_map(|fields| {
            let mut document = good();
            document.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            document
        })
    }

    proptest! {
        #[test]
        fn a_document_is_a_message_that_keeps_the_contract_or_has_a_reason(document in document()) {
            if let Ok(message) = decoded(document) {
                prop_assert!(message::check_content(&message.content).is_ok());
                prop_assert_eq!(UserName::normalise(message.sender.as_str()), Ok(message.sender.clone()));
                prop_assert!((1..=9999).contains(&message.date.year()));
                prop_assert!(bson_of(message.id.as_str()).is_some());
            }
        }

        #[test]
        fn damaged_bytes_never_make_it_panic(
            document in document(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = RawDocumentBuf::try_from(&document).unwrap().into_bytes();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()).max(5));
            }
            // As long as it says, or the driver would have refused it before.
            let length = i32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            if let Some(last) = bytes.last_mut() {
                *last = 0;
            }
            if let Ok(document) = RawDocumentBuf::from_bytes(bytes) {
                let _ = decode(&document);
            }
        }
    }
}
