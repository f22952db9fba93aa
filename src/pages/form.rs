//! The form of a page: what it sent, and how it is shown again.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use poem::{Body, error::ResponseError, http::StatusCode};
use tokio::time::timeout;

use super::{
    place::Place,
    texts::{PageTexts, fill},
    visitor::Visitor,
};
use crate::message::{Draft, FieldError};

/// The largest form, in bytes. A text that is far too long still fits, so that it is given back to be shortened.
const FORM_BYTES_MAX: usize = 256 * 1024;
/// How long a form may take to come, in seconds.
const FORM_SECS_MAX: u64 = 20;

/// The fields as a browser sends them.
#[derive(Debug, Clone, Default)]
pub(super) struct SentForm {
    content: String,
    sender: String,
    recipient: String,
    /// Made by [`new_id`] with the page, so that a form that is sent twice is stored once.
    id: String,
}

impl SentForm {
    /// Reads the body of a form. Fields that are missing are empty, others are passed over.
    ///
    /// # Errors
    /// The status to answer: the body was too large, ended too early, or did not come.
    pub(super) async fn read(body: Body) -> Result<Self, StatusCode> {
        let reading = timeout(Duration::from_secs(FORM_SECS_MAX), body.into_bytes_limit(FORM_BYTES_MAX));
        let bytes = reading.await.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|error| error.status())?;
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(&bytes) {
            let field = match &*name {
                "content" => &mut form.content,
                "sender" => &mut form.sender,
                "recipient" => &mut form.recipient,
                "id" => &mut form.id,
                _ => continue,
            };
            *field = value.into_owned();
        }
        Ok(form)
    }

    pub(super) fn draft(&self, place: &Place) -> Draft {
        let recipient = self.recipient.trim();
        let (recipient, room) = match place {
            Place::Room(room) => (recipient, Some(room.as_str().to_owned())),
            // No recipient would mean the room `general`; an inbox writes to people only, and a blank is the name
            // of nobody.
            Place::Inbox(_) if recipient.is_empty() => (" ", None),
            Place::Inbox(_) => (recipient, None),
        };
        Draft {
            id: (!self.id.is_empty()).then(|| self.id.clone()),
            content: Some(self.content()),
            sender: Some(self.sender.clone()),
            recipient: Some(recipient.to_owned()),
            room,
            unread: Vec::new(),
        }
    }

    /// Whom the message was for, as typed.
    pub(super) fn recipient(&self) -> &str {
        self.recipient.trim()
    }

    /// A form sends every line end as CR LF, whatever was typed.
    fn content(&self) -> String {
        self.content.replace("\r\n", "\n")
    }
}

/// The form as the template shows it.
#[derive(Debug, Default)]
pub(super) struct FormView {
    pub(super) id: String,
    pub(super) sender: String,
    pub(super) recipient: String,
    pub(super) content: String,
    pub(super) errors: FormErrors,
}

/// What is said beside the fields.
#[derive(Debug, Default)]
pub(super) struct FormErrors {
    pub(super) sender: Option<String>,
    pub(super) recipient: Option<String>,
    pub(super) content: Option<String>,
    /// What is the fault of no field.
    pub(super) form: Option<String>,
}

impl FormView {
    /// A form for the next message.
    pub(super) fn empty(place: &Place, visitor: &Visitor, recipient: String) -> Self {
        Self {
            id: new_id(),
            sender: visitor.name_at(place).map(ToString::to_string).unwrap_or_default(),
            recipient,
            ..Self::default()
        }
    }

    /// What was sent, given back with what is to be said about it.
    pub(super) fn returned(sent: SentForm, errors: FormErrors) -> Self {
        Self { content: sent.content(), id: sent.id, sender: sent.sender, recipient: sent.recipient, errors }
    }
}

impl FormErrors {
    /// Something about the whole form.
    pub(super) fn of_form(text: String) -> Self {
        Self { form: Some(text), ..Self::default() }
    }

    /// The fields at fault, in the page's language.
    pub(super) fn of_fields(faults: &[FieldError], sent: &SentForm, texts: &PageTexts) -> Self {
        let mut errors = Self::default();
        for fault in faults {
            match fault.field.as_str() {
                "sender" if sent.sender.trim().is_empty() => errors.sender = Some(texts.error_sender_empty.clone()),
                "sender" => errors.sender = Some(texts.error_sender.clone()),
                "recipient" if sent.recipient().is_empty() => {
                    errors.recipient = Some(texts.error_recipient_empty.clone());
                }
                "recipient" => errors.recipient = Some(texts.error_recipient.clone()),
                "content" if sent.content.trim().is_empty() => {
                    errors.content = Some(texts.error_content_empty.clone());
                }
                "content" => {
                    let count = sent.content().chars().count().to_string();
                    errors.content = Some(fill(&texts.error_content, "count", &count));
                }
                "id" => errors.form = Some(texts.error_id.clone()),
                _ => errors.form = Some(texts.error_room.clone()),
            }
        }
        errors
    }
}

/// A fresh id in the form of an ObjectId: 4 bytes of seconds and 8 that differ. The randomness is that of the
/// standard library's hash maps: nobody gains by guessing it, as an id that is taken is never shown to the guesser.
pub(super) fn new_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Truncated in 2106, when ObjectIds wrap round as well.
    let seconds = now.as_secs() as u32;
    format!("{seconds:08x}{:016x}", RandomState::new().hash_one(now.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Destination, MessageId, NewMessage, RoomName, UserName};

    fn sent(recipient: &str) -> SentForm {
        SentForm { content: "uno\r\ndos".into(), sender: " Ana ".into(), recipient: recipient.into(), id: new_id() }
    }

    #[test]
    fn a_form_writes_to_its_room_or_to_the_named_person() {
        let dev = Place::Room(RoomName::parse("dev").unwrap());
        let ana = Place::Inbox(UserName::parse("Ana").unwrap());
        let luis = Destination::Direct(UserName::parse("Luis").unwrap());
        let to = |place, recipient| NewMessage::parse(sent(recipient).draft(place)).map(|new| new.to);
        assert_eq!(to(&dev, " "), Ok(Destination::Room(RoomName::parse("dev").unwrap())));
        assert_eq!(to(&dev, "Luis"), Ok(luis.clone()));
        assert_eq!(to(&ana, "Luis "), Ok(luis));
        assert_eq!(to(&ana, " ").unwrap_err()[0].field, "recipient");
    }

    #[test]
    fn line_ends_are_those_that_were_typed() {
        let place = Place::Room(RoomName::general());
        assert_eq!(NewMessage::parse(sent("").draft(&place)).unwrap().content, "uno\ndos");
    }

    #[test]
    fn ids_of_forms_are_object_ids_that_differ() {
        let (one, other) = (new_id(), new_id());
        assert!(MessageId::parse_object_id(&one).is_some());
        assert_ne!(one, other);
    }
}
