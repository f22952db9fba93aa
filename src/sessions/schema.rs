//! The frames as the OpenAPI document shows them.

use std::borrow::Cow;

use poem_openapi::{
    registry::{MetaDiscriminatorObject, MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};
use serde_json::json;

/// A frame from the server, in name: it is written by `frame`, and here is what it looks like.
pub(super) struct Frame;

/// A frame's `type`, what it means, and its other fields, all of which it always has.
type Row = (&'static str, &'static str, &'static [(&'static str, Field)]);

/// What a field holds.
#[derive(Clone, Copy)]
enum Field {
    Cursor,
    Topics,
    Message,
    Id,
    Stream,
    Reason,
}

/// The frames that every transport sends.
const FRAMES: [Row; 6] = {
    use Field::{Cursor, Id, Message, Reason, Stream, Topics};
    [
        (
            "created",
            "The message entered the topics that are followed.",
            &[("cursor", Cursor), ("topics", Topics), ("message", Message)],
        ),
        (
            "updated",
            "The message stayed within the topics that are followed. It is given as it is now.",
            &[("cursor", Cursor), ("topics", Topics), ("message", Message)],
        ),
        (
            "deleted",
            "The message left the topics that are followed, or is gone. `topics` is empty when it is not known where it was.",
            &[("cursor", Cursor), ("topics", Topics), ("id", Id)],
        ),
        ("ready", "Everything that was missed has been told; from here on it is live.", &[("cursor", Cursor)]),
        (
            "position",
            "Nothing new, but time moved: the place to come back with.",
            &[("cursor", Cursor), ("stream", Stream)],
        ),
        (
            "reset",
            "What follows the cursor can not be told any more: load the history again and join with its cursor.",
            &[("cursor", Cursor), ("reason", Reason)],
        ),
    ]
};

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
            for (kind, meaning, fields) in FRAMES {
                registry.schemas.insert(schema_name(kind), frame(kind, meaning, fields));
            }
            let kinds = FRAMES.map(|(kind, ..)| kind);
            let mapping = kinds.map(|kind| (kind.to_owned(), format!("#/components/schemas/{}", schema_name(kind))));
            MetaSchema {
                description: Some(
                    "A frame of the protocol, told apart by `type`. Ignore types and fields you do not know.",
                ),
                one_of: kinds.map(|kind| reference(&schema_name(kind))).into(),
                discriminator: Some(MetaDiscriminatorObject { property_name: "type", mapping: mapping.into() }),
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
fn schema_name(kind: &str) -> String {
    let (first, rest) = kind.split_at(1);
    format!("Frame{}{rest}", first.to_uppercase())
}

fn reference(name: &str) -> MetaSchemaRef {
    MetaSchemaRef::Reference(name.to_owned())
}

fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

fn frame(kind: &'static str, meaning: &'static str, fields: &[(&'static str, Field)]) -> MetaSchema {
    let kind = MetaSchema { enum_items: vec![json!(kind)], ..MetaSchema::new("string") };
    let others = fields.iter().map(|(name, field)| (*name, field.schema()));
    let properties: Vec<_> = std::iter::once(("type", inline(kind))).chain(others).collect();
    MetaSchema {
        description: Some(meaning),
        required: properties.iter().map(|(name, _)| *name).collect(),
        properties,
        ..MetaSchema::new("object")
    }
}

impl Field {
    fn schema(self) -> MetaSchemaRef {
        let text = |description, example: &str| {
            let example = Some(json!(example));
            inline(MetaSchema { description: Some(description), example, ..MetaSchema::new("string") })
        };
        match self {
            // What the API calls a message, in the same document.
            Field::Message => reference("Message"),
            Field::Topics => inline(MetaSchema {
                description: Some("The topics of the message, not those that are followed."),
                items: Some(Box::new(reference("Topic"))),
                ..MetaSchema::new("array")
            }),
            Field::Cursor => text("An opaque place in the stream.", "97bf3ca9-6b063e3900000003-d87b4be1"),
            Field::Id => text("The id of the message.", "6745b2c3d4e5f60718293a4b"),
            Field::Reason => text("For people and for logs.", "the cursor is of another collection"),
            Field::Stream => inline(MetaSchema {
                description: Some("How live the server's own stream is."),
                enum_items: vec![json!("live"), json!("catching up"), json!("stale")],
                ..MetaSchema::new("string")
            }),
        }
    }
}

/// One of the three has it.
fn topic() -> MetaSchema {
    let text = |description| inline(MetaSchema { description: Some(description), ..MetaSchema::new("string") });
    MetaSchema {
        description: Some("What can be followed: a room, or an inbox."),
        properties: vec![("room", text("The room of this name.")), ("inbox", text("The inbox of this person."))],
        max_properties: Some(1),
        min_properties: Some(1),
        ..MetaSchema::new("object")
    }
}
