//! The frames as the OpenAPI and the AsyncAPI document show them.

use std::borrow::Cow;

use poem_openapi::{
    registry::{MetaDiscriminatorObject, MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};
use serde_json::{Value, json};

use super::catalogue::{FrameEntry, Holds, frames};
use crate::message::{CONTENT_CHARS_MAX, NAME_CHARS_MAX};

/// A frame from the server, in name: it is written by `frame`, and here is what it looks like.
pub(super) struct Frame;

/// The frames that come over HTTP: the others have no place in its document.
fn frames_of_http() -> impl Iterator<Item = &'static FrameEntry> {
    frames().iter().filter(|frame| frame.carriers.has_events())
}

/// The schemas of all frames, for a document that has the schemas of OpenAPI already: by name.
pub fn frame_schemas() -> impl Iterator<Item = (String, Value)> {
    frames().iter().map(|entry| (schema_name(entry.kind), json!(frame(entry))))
}

impl Type for Frame {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "Frame".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        reference("Frame")
    }

    fn register(registry: &mut Registry) {
        registry.create_schema::<Self, _>("Frame".into(), |registry| {
            registry.schemas.insert("Topic".into(), topic());
            for entry in frames_of_http() {
                registry.schemas.insert(schema_name(entry.kind), frame(entry));
            }
            let names = frames_of_http().map(|entry| schema_name(entry.kind));
            let mapping = |entry: &FrameEntry| {
                (entry.kind.to_owned(), format!("#/components/schemas/{}", schema_name(entry.kind)))
            };
            MetaSchema {
                description: Some(
                    "A frame of the protocol, told apart by `type`. Ignore types and fields you do not know.",
                ),
                one_of: names.map(|name| reference(&name)).collect(),
                discriminator: Some(MetaDiscriminatorObject {
                    property_name: "type",
                    mapping: frames_of_http().map(mapping).collect(),
                }),
                ..MetaSchema::ANY
            }
        });
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

/// `FrameCreated`, ...
pub fn schema_name(kind: &str) -> String {
    let (first, rest) = kind.split_at(1);
    format!("Frame{}{rest}", first.to_uppercase())
}

fn reference(name: &str) -> MetaSchemaRef {
    MetaSchemaRef::Reference(name.to_owned())
}

fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

fn frame(entry: &FrameEntry) -> MetaSchema {
    let kind = MetaSchema { enum_items: vec![json!(entry.kind)], ..MetaSchema::new("string") };
    let others = entry.fields.iter().map(|field| (field.name, field.holds.schema()));
    let required = entry.fields.iter().filter(|field| field.is_required).map(|field| field.name);
    MetaSchema {
        description: Some(entry.meaning),
        required: std::iter::once("type").chain(required).collect(),
        properties: std::iter::once(("type", inline(kind))).chain(others).collect(),
        example: entry.examples.first().cloned(),
        ..MetaSchema::new("object")
    }
}

impl Holds {
    fn schema(self) -> MetaSchemaRef {
        let text = |description| inline(MetaSchema { description: Some(description), ..MetaSchema::new("string") });
        let name = |description| {
            let (min_length, max_length) = (Some(1), Some(NAME_CHARS_MAX));
            inline(MetaSchema { description: Some(description), min_length, max_length, ..MetaSchema::new("string") })
        };
        match self {
            // What the API calls a message and a problem, in the same document.
            Holds::Message => reference("Message"),
            Holds::Problem => reference("Problem"),
            Holds::Topic => reference("Topic"),
            Holds::Topics => inline(MetaSchema {
                description: Some("The topics of the message, not those that are followed."),
                items: Some(Box::new(reference("Topic"))),
                ..MetaSchema::new("array")
            }),
            Holds::Cursor => text("An opaque place in the stream."),
            Holds::Id => text("The id of the message."),
            Holds::Reason => text("For people and for logs."),
            Holds::Room => name("The room of this name."),
            Holds::Inbox => name("The direct messages to and from this person."),
            Holds::Sender => name("The name of who writes. Nobody checks it."),
            Holds::Recipient => name("Makes it a direct message to this person. Wins over `room`."),
            Holds::All => inline(MetaSchema {
                description: Some("Everything."),
                enum_items: vec![json!(true)],
                ..MetaSchema::new("boolean")
            }),
            Holds::Content => inline(MetaSchema {
                description: Some("What to say. Must be more than white space."),
                min_length: Some(1),
                max_length: Some(CONTENT_CHARS_MAX),
                ..MetaSchema::new("string")
            }),
            Holds::NewId => inline(MetaSchema {
                description: Some("An id of one's own choice: 24 hexadecimal digits."),
                pattern: Some("^[0-9a-fA-F]{24}$".into()),
                ..MetaSchema::new("string")
            }),
            Holds::Stream => inline(MetaSchema {
                description: Some("How live the server's own stream is."),
                enum_items: vec![json!("live"), json!("catching up"), json!("stale")],
                ..MetaSchema::new("string")
            }),
        }
    }
}

fn topic() -> MetaSchema {
    let text = |description| inline(MetaSchema { description: Some(description), ..MetaSchema::new("string") });
    MetaSchema {
        description: Some("What can be followed: a room, an inbox, or everything."),
        properties: vec![
            ("room", text("The room of this name.")),
            ("inbox", text("The inbox of this person.")),
            ("all", inline(MetaSchema { description: Some("Everything."), ..MetaSchema::new("boolean") })),
        ],
        example: Some(json!({ "room": "general" })),
        max_properties: Some(1),
        min_properties: Some(1),
        ..MetaSchema::new("object")
    }
}
