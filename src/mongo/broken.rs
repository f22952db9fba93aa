//! Documents that are no messages, in words for those who look after the programs that write them.

use std::fmt::Write;

use mongodb::bson::{RawBsonRef, RawDocument};

use super::document::Invalid;
use crate::{
    event::Event,
    message::{self, ID_BYTES_MAX, RoomName, UserName},
};

/// How much of a text or of other bytes is shown of an `_id`, in characters: some are megabytes.
const ID_CHARS_SHOWN: usize = 64;

/// A change to a document that breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The rule that it breaks.
    pub reason: Invalid,
    /// Which document it is and how it breaks the rule, for a log line: its `_id`, bounded and on one line, and no other
    /// value.
    pub fault: String,
    /// What the change is to those who were shown what the document was: it is gone. `None` when nobody was.
    pub gone: Option<Box<Event>>,
}

/// See [`Broken::fault`]. `document` is what was read of it: the contract's fields, as `pipeline` has them.
pub(super) fn fault_in(id: Option<RawBsonRef<'_>>, document: Option<&RawDocument>, reason: Invalid) -> String {
    let how = match reason {
        // What is far too long is not read of a stored document.
        Invalid::Id if id.is_none() => format!("its _id can not be read, or has far more than {ID_BYTES_MAX} bytes"),
        Invalid::Id => format!("its _id has more than {ID_BYTES_MAX} bytes"),
        Invalid::Content => of_text(document, "content", |text| message::check_content(text).err()),
        Invalid::Sender => of_text(document, "sender", |text| UserName::parse(text).err()),
        Invalid::Recipient => of_text(document, "recipient", |text| UserName::parse(text).err()),
        Invalid::Room => of_text(document, "room", |text| RoomName::parse(text).err()),
        Invalid::Date => {
            "its date is no Date between the years 1 and 9999, or is missing beside an _id that tells no time"
                .to_owned()
        }
        Invalid::Encoding => "its bytes are no BSON, or a text in it is no UTF-8".to_owned(),
    };
    format!("_id {}, {how}", shown(id))
}

/// What is wrong with a text of the contract.
fn of_text(
    document: Option<&RawDocument>,
    field: &str,
    fault: impl Fn(&str) -> Option<message::InvalidText>,
) -> String {
    match document.and_then(|document| document.get(field).ok()).flatten() {
        None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => format!("its {field} is missing"),
        Some(RawBsonRef::String(text)) => match fault(text) {
            Some(fault) => format!("its {field} {fault}"),
            None => format!("its {field} is against the rules"),
        },
        // What is far too long comes as a value of another type, too.
        Some(_) => format!("its {field} is no string, or far too long"),
    }
}

/// An `_id` on one line, much as mongosh writes it.
fn shown(id: Option<RawBsonRef<'_>>) -> String {
    match id {
        None => "unreadable".to_owned(),
        Some(RawBsonRef::ObjectId(id)) => format!("ObjectId(\"{id}\")"),
        Some(RawBsonRef::String(text)) => {
            let begin: String = text.chars().take(ID_CHARS_SHOWN).collect();
            // With what is not printed, and what turns a line around, escaped.
            format!("{begin:?}{}", if begin.len() < text.len() { "..." } else { "" })
        }
        Some(RawBsonRef::Int32(number)) => number.to_string(),
        Some(RawBsonRef::Int64(number)) => number.to_string(),
        Some(RawBsonRef::Double(number)) => format!("{number:?}"),
        Some(RawBsonRef::Boolean(value)) => value.to_string(),
        Some(RawBsonRef::Null) => "null".to_owned(),
        Some(RawBsonRef::Binary(binary)) => {
            let mut hex = String::new();
            for byte in binary.bytes.iter().take(ID_CHARS_SHOWN / 2) {
                // Writing to a string does not fail.
                let _ = write!(hex, "{byte:02x}");
            }
            format!("HexData({hex}{})", if hex.len() < 2 * binary.bytes.len() { "..." } else { "" })
        }
        Some(other) => format!("of type {:?}", other.element_type()),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};

    use super::{super::document::decode, *};

    fn fault(document: &Document) -> String {
        let document = RawDocumentBuf::try_from(document).unwrap();
        let reason = decode(&document).unwrap_err();
        fault_in(document.get("_id").ok().flatten(), Some(&*document), reason)
    }

    #[test]
    fn a_fault_names_the_document_and_how_it_breaks_which_rule() {
        let id = ObjectId::from_bytes([1; 12]);
        for (document, expected) in [
            (doc! { "_id": id, "content": "x" }, "_id ObjectId(\"010101010101010101010101\"), its sender is missing"),
            (doc! { "_id": id, "content": 5 }, "its content is no string, or far too long"),
            (doc! { "_id": 7, "content": "", "sender": "Ana" }, "_id 7, its content must not be empty"),
            (doc! { "_id": id, "content": "x", "sender": " Ana" }, "its sender is not in normal form"),
            (doc! { "_id": id, "content": "x", "sender": "Ana", "room": ".." }, "its room must not contain a part"),
            (doc! { "_id": id, "content": "x", "sender": "Ana", "recipient": "\n" }, "its recipient must not be empty"),
            (doc! { "_id": "a", "content": "x", "sender": "Ana" }, "_id \"a\", its date is no Date"),
            (doc! { "content": "x", "sender": "Ana" }, "_id unreadable, its _id can not be read, or has"),
        ] {
            let fault = fault(&document);
            assert!(fault.contains(expected), "{fault} of {document}");
        }
    }

    #[test]
    fn an_id_is_shown_bounded_and_on_one_line() {
        for (id, expected) in [
            (Bson::from("a\n\u{202e}\u{1b}[31m"), r#""a\n\u{202e}\u{1b}[31m""#.to_owned()),
            ("ñ".repeat(1 << 20).into(), format!("{:?}...", "ñ".repeat(ID_CHARS_SHOWN))),
            (Bson::Double(0.5), "0.5".to_owned()),
            (doc! { "a": "\n".repeat(1_000) }.into(), "of type EmbeddedDocument".to_owned()),
        ] {
            let document = RawDocumentBuf::try_from(&doc! { "_id": id }).unwrap();
            assert_eq!(shown(document.get("_id").unwrap()), expected);
        }
        let bytes = mongodb::bson::Binary { subtype: mongodb::bson::spec::BinarySubtype::Generic, bytes: vec![9; 300] };
        let document = RawDocumentBuf::try_from(&doc! { "_id": bytes }).unwrap();
        assert_eq!(shown(document.get("_id").unwrap()), format!("HexData({}...)", "09".repeat(32)));
    }
}
