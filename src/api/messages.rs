//! `/api/messages`

use std::time::Duration;

use poem::http::{HeaderMap, StatusCode, Uri};
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{
    Api, Section,
    answers::{MessageAnswer, MessageFailure, MessagesAnswer, PageFailure, SendFailure, SentAnswer},
    body::{Fields, MessagesBody},
    check_query, field,
    limit::Limit,
    nullable::Nullable,
    part::{Part, scope_of},
};
use crate::{
    cursor::{ClusterTime, Cursor},
    listener::{ClientNetwork, Writer},
    message::{Draft, MessageId, NewMessage, UserName},
    mongo::ReadError,
    problem::Problem,
};

/// How long a read waits for this server to come to `since`, in seconds.
const SINCE_SECS_MAX: u64 = 5;

/// The handlers of `/api/messages`.
pub struct MessagesApi(pub(super) Api);

#[OpenApi(prefix_path = "/api", tag = "Section::Messages")]
impl MessagesApi {
    /// Send a message
    ///
    /// Answers when the message is on the disks of a majority of MongoDB's members. It then comes to every connected
    /// client, its sender too, through the change stream.
    #[oai(path = "/messages", method = "post", operation_id = "sendMessage")]
    async fn send(
        &self,
        fields: Json<Fields>,
        /// Makes a retry harmless without an `id`: the id is derived from this key and the sender. Take a key that nobody can
        /// guess, such as a random UUID, or somebody else may take that id before.
        #[oai(name = "Idempotency-Key", validator(min_length = 1, max_length = 256))]
        idempotency_key: Header<Option<String>>,
        headers: &HeaderMap,
        from: ClientNetwork,
        writer: Writer,
    ) -> Result<SentAnswer, SendFailure> {
        // The framework takes a header of bytes that are no text for none, and a retry would then not be harmless.
        if idempotency_key.0.is_none() && headers.contains_key("Idempotency-Key") {
            return Err(Problem::invalid(field("Idempotency-Key", "must be printable ASCII")).into());
        }
        let draft = writer.sign(Draft::from_json(fields.0.0)).map_err(Problem::from)?;
        let mut message = NewMessage::parse(draft).map_err(Problem::invalid)?;
        if let Some(key) = idempotency_key.0 {
            if message.id.is_some() {
                let errors = field("id", "can not be given together with an Idempotency-Key");
                return Err(Problem::invalid(errors).into());
            }
            message.id = Some(id_of_key(&message.sender, &key));
        }
        self.0.rates.message(from, &message.sender).map_err(Problem::from)?;
        let inserted = self.0.inserter.insert(message).await.map_err(Problem::from)?;
        let location = self.0.base.join(&format!("/api/messages/{}", inserted.message.id));
        let body = Json((&inserted.message).into());
        Ok(match inserted.is_new {
            true => SentAnswer::Created(body, location),
            false => SentAnswer::Repeated(body, location),
        })
    }

    /// Read messages
    ///
    /// The newest ones of a room, of an inbox, of the conversation of two people (`inbox` and `with`), or of
    /// everything when none is named. Older ones by `before`, newer ones by `after`, those about a message by `around`.
    ///
    /// With `q` only messages that contain all of its words, also within longer ones. Case and accents make no
    /// difference, and no character has a meaning of its own. One request looks at a bounded number of messages (5,000,
    /// or as many as a second is enough for), from the newest to the oldest. So its page may be short, or even empty,
    /// while `before` is not null: go on from there for older finds.
    #[oai(path = "/messages", method = "get", operation_id = "listMessages")]
    #[allow(clippy::too_many_arguments)] // Each is a parameter of the documented operation.
    async fn list(
        &self,
        /// The messages of this room.
        room: Query<Option<String>>,
        /// The direct messages to and from this person.
        inbox: Query<Option<String>>,
        /// Only those between `inbox` and this person.
        with: Query<Option<String>>,
        /// Only those that contain all of these words: 1 to 200 characters, none of them a control character. Not
        /// together with `after`.
        q: Query<Option<String>>,
        /// How many at most.
        #[oai(default)]
        limit: Query<Limit<200>>,
        /// Older than this place: the `before` of another page.
        before: Query<Option<String>>,
        /// Newer than this place: the `after` of another page. Not together with `before`.
        after: Query<Option<String>>,
        /// The message with this id, half of the others older and half of them newer. Not together with `before`,
        /// `after` or `q`.
        around: Query<Option<String>>,
        /// At least as new as this cursor.
        since: Query<Option<String>>,
        uri: &Uri,
        from: ClientNetwork,
    ) -> Result<MessagesAnswer, PageFailure> {
        let known = ["room", "inbox", "with", "q", "limit", "before", "after", "around", "since"];
        check_query(uri, &known).map_err(Problem::invalid)?;
        let limit = limit.0.get()?;
        let scope = scope_of(room.0.as_deref(), inbox.0.as_deref(), with.0.as_deref()).map_err(Problem::invalid)?;
        let part = Part::parse(q.0, before.0, after.0, around.0).map_err(Problem::invalid)?;
        let at_least = self.0.reach(since.0.as_deref()).await?;
        // Only now: who waits for the stream keeps nobody of the same address from reading.
        let _turn = self.0.rates.turn(from).await.map_err(Problem::from)?;
        // Before the read: what happens from here on is in the read, or comes after this cursor, or both.
        let cursor = self.0.status.position();
        let page = part.read(&self.0.history, &scope, limit as usize, at_least.max(cursor.time)).await;
        let page = page.map_err(unreadable)?.ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "there is no message with this id in what was asked for")
        })?;
        let body = MessagesBody {
            messages: page.messages.iter().map(Into::into).collect(),
            cursor: cursor.to_string(),
            before: Nullable(page.before.map(|place| place.to_string())),
            after: Nullable(page.after.map(|place| place.to_string())),
        };
        let link = part.link(&self.0.base, &scope, limit, body.before.0.as_deref(), body.after.0.as_deref());
        Ok(MessagesAnswer::Page(Json(body), link))
    }

    /// Read one message
    ///
    /// As it is now: an edit shows, and a message that was deleted is a 404.
    #[oai(path = "/messages/:id", method = "get", operation_id = "getMessage")]
    async fn get(
        &self,
        /// The message's id.
        id: Path<String>,
    ) -> Result<MessageAnswer, MessageFailure> {
        let at_least = self.0.status.position().time;
        match self.0.history.get(&id.0, at_least).await.map_err(unreadable)? {
            Some(message) => Ok(MessageAnswer::Found(Json((&message).into()))),
            None => Err(Problem::new(StatusCode::NOT_FOUND, "there is no message with this id").into()),
        }
    }
}

impl Api {
    /// Waits until this server has come to the cursor `since`. Returns the time that a read must not lie before.
    async fn reach(&self, since: Option<&str>) -> Result<ClusterTime, Problem> {
        let Some(text) = since else {
            return Ok(ClusterTime::default());
        };
        let since: Cursor = text.parse().map_err(|error| Problem::invalid(field("since", error)))?;
        if since.epoch != self.status.position().epoch {
            let errors = field("since", "is a cursor of another collection; load the history without it");
            return Err(Problem::invalid(errors));
        }
        match self.status.reached(since, Duration::from_secs(SINCE_SECS_MAX)).await {
            true => Ok(since.time),
            false => Err(Problem::unavailable("this server has not come to the cursor `since` yet")),
        }
    }
}

pub(super) fn unreadable(error: ReadError) -> Problem {
    warn!("a read failed: {}", error.reason);
    error.into()
}

/// `_id` = the first 12 bytes of a SHA-256 over sender and key, with the sender's length between them, so that no two
/// pairs run together into one text.
fn id_of_key(sender: &UserName, key: &str) -> MessageId {
    let mut hash = Sha256::new();
    hash.update((sender.as_str().len() as u64).to_be_bytes());
    hash.update(sender.as_str());
    hash.update(key);
    let hex: String = hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    MessageId::from_text_form(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_counts_per_sender() {
        let user = |name| UserName::parse(name).unwrap();
        let id = id_of_key(&user("Ana"), "1");
        assert_eq!(id, id_of_key(&user("Ana"), "1"));
        assert_ne!(id, id_of_key(&user("Luis"), "1"));
        assert_ne!(id_of_key(&user("Ana1"), "2"), id_of_key(&user("Ana"), "12"));
        assert!(MessageId::parse_object_id(id.as_str()).is_some());
    }
}
