//! One message as the template shows it. `templates/static/row.js` follows the same rules.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    marks::Marks,
    text::{Piece, marked, mentions, pieces},
};
use crate::message::{Destination, Message, UserName, date_text};

/// Messages of one sender closer than this stand under one name.
const GROUP: TimeDelta = TimeDelta::minutes(5);
/// How many colours names have.
const HUES: u32 = 12;

/// See the module. Times are in UTC; the browser shows them in its own zone.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) id: String,
    /// RFC 3339.
    pub(super) date: String,
    /// Its part up to the day.
    pub(super) day: String,
    /// Its hour and minute.
    pub(super) time: String,
    pub(super) sender: String,
    /// Empty in a room.
    pub(super) recipient: String,
    pub(super) initial: String,
    pub(super) hue: u32,
    /// Whether the day is another than that of the row before.
    pub(super) starts_day: bool,
    /// Whether the name is to be shown again.
    pub(super) starts_group: bool,
    /// Whether the visitor wrote it.
    pub(super) own: bool,
    /// Whether it calls the visitor by name.
    pub(super) is_mention: bool,
    content: String,
    /// What a search was for.
    marks: Option<Marks>,
}

impl Row {
    /// The row that the browser fills.
    pub(super) fn blank() -> Self {
        Self { starts_group: true, ..Self::default() }
    }

    fn new(message: Message, previous: Option<(&Row, DateTime<Utc>)>, visitor: Option<&UserName>) -> Self {
        let date = date_text(&message.date);
        let day = date[..10].to_owned();
        let time = format!("{} UTC", &date[11..16]);
        let sender = message.sender.as_str().to_owned();
        let recipient = match &message.to {
            Destination::Direct(recipient) => recipient.as_str().to_owned(),
            Destination::Room(_) => String::new(),
        };
        let starts_day = previous.is_none_or(|(row, _)| row.day != day);
        let is_grouped = previous.is_some_and(|(row, date)| {
            row.sender == sender && row.recipient == recipient && message.date - date < GROUP
        });
        Self {
            id: message.id.as_str().to_owned(),
            date,
            day,
            time,
            initial: initial_of(&sender),
            hue: hue_of(&sender),
            starts_day,
            starts_group: starts_day || !is_grouped,
            own: visitor == Some(&message.sender),
            is_mention: visitor
                .is_some_and(|name| *name != message.sender && mentions(&message.content, name.as_str())),
            sender,
            recipient,
            content: message.content,
            marks: None,
        }
    }

    pub(super) fn pieces(&self) -> Vec<Piece<'_>> {
        let pieces = pieces(&self.content);
        match &self.marks {
            Some(marks) => marked(pieces, marks),
            None => pieces,
        }
    }

    /// The rows of what a search has found, newest first; each stands for itself.
    pub(super) fn found(messages: Vec<Message>, visitor: Option<&UserName>, marks: &Marks) -> Vec<Self> {
        let mut rows: Vec<Self> = Vec::with_capacity(messages.len());
        for message in messages.into_iter().rev() {
            let mut row = Self::new(message, None, visitor);
            row.starts_day = rows.last().is_none_or(|previous| previous.day != row.day);
            row.marks = Some(marks.clone());
            rows.push(row);
        }
        rows
    }
}

/// The rows of a page, whose messages come oldest first.
pub(super) fn rows_of(messages: Vec<Message>, visitor: Option<&UserName>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::with_capacity(messages.len());
    let mut previous_date = DateTime::UNIX_EPOCH;
    for message in messages {
        let date = message.date;
        let row = Row::new(message, rows.last().map(|row| (row, previous_date)), visitor);
        rows.push(row);
        previous_date = date;
    }
    rows
}

fn initial_of(name: &str) -> String {
    name.chars().take(1).flat_map(char::to_uppercase).collect()
}

/// FNV-1a over the name's bytes: the browser must come to the same colour.
fn hue_of(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % HUES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, RoomName};

    fn message(sender: &str, seconds: i64) -> Message {
        Message {
            id: MessageId::from_text_form(seconds.to_string()),
            content: "hola".into(),
            sender: UserName::parse(sender).unwrap(),
            to: Destination::Room(RoomName::general()),
            date: DateTime::from_timestamp(seconds, 0).unwrap(),
        }
    }

    #[test]
    fn a_name_stands_once_over_messages_of_one_sender_within_five_minutes_of_one_day() {
        const DAY: i64 = 86_400;
        let table = [
            // (sender, seconds, starts_day, starts_group)
            ("Ana", DAY + 1, true, true),
            ("Ana", DAY + 300, false, false),
            ("Ana", DAY + 600, false, true),
            ("Luis", DAY + 601, false, true),
            ("Luis", 2 * DAY - 1, false, true),
            ("Luis", 2 * DAY, true, true),
        ];
        let messages = table.iter().map(|(sender, seconds, ..)| message(sender, *seconds)).collect();
        let luis = UserName::parse("Luis").unwrap();
        for (row, (sender, seconds, starts_day, starts_group)) in rows_of(messages, Some(&luis)).iter().zip(table) {
            assert_eq!((row.starts_day, row.starts_group), (starts_day, starts_group), "{seconds}");
            assert_eq!(row.own, sender == "Luis");
        }
    }

    #[test]
    fn initials_and_colours_are_those_that_the_browser_makes() {
        assert_eq!(initial_of("ñandú"), "Ñ");
        assert_eq!(initial_of("👩\u{200D}👧"), "👩");
        // `hueOf` of `row.js` gives the same.
        assert_eq!([hue_of("Ana"), hue_of("Luis"), hue_of("ñ")], [5, 6, 9]);
    }
}
