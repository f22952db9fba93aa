//! The terminal: messages go to the standard output in the order in which they are told, one line each; what is to be
//! said about the connection goes to the standard error.
//!
//! A page would place messages by (`date`, `id`). What is printed can not be moved any more, so here they stand as they
//! came, which is the order of the change stream.

use std::{
    collections::{HashMap, VecDeque},
    io::Write,
};

use chrono::{DateTime, Local};

use crate::connection::Message;

/// So many messages are remembered, for the words of a deleted one and against showing one twice.
const REMEMBERED_MAX: usize = 1_000;

/// Marks, embeddings, overrides and isolates of direction, and the separators that some terminals take for new lines.
const TURNS_OR_BREAKS: [char; 14] = [
    '\u{061C}', '\u{200E}', '\u{200F}', '\u{2028}', '\u{2029}', '\u{202A}', '\u{202B}', '\u{202C}', '\u{202D}',
    '\u{202E}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

#[derive(Default)]
pub struct Screen {
    remembered: HashMap<String, Message>,
    oldest_first: VecDeque<String>,
}

impl Screen {
    /// Also after a lost connection or a reset: what was shown before is not shown again.
    pub fn created(&mut self, message: Message) {
        if self.remembered.get(&message.id) != Some(&message) {
            let what = if self.remembered.contains_key(&message.id) { " (edited)" } else { "" };
            print(&message, "", what);
            self.remember(message);
        }
    }

    pub fn updated(&mut self, message: Message) {
        if self.remembered.get(&message.id) != Some(&message) {
            print(&message, "", " (edited)");
            self.remember(message);
        }
    }

    /// A message that was never shown needs not be taken back.
    pub fn deleted(&mut self, id: &str) {
        if let Some(message) = self.remembered.remove(id) {
            print(&message, "deleted: ", "");
        }
    }

    /// Something about the connection.
    pub fn note(&self, text: &str) {
        eprintln!("-- {}", harmless(text));
    }

    fn remember(&mut self, message: Message) {
        let id = message.id.clone();
        if self.remembered.insert(id.clone(), message).is_none() {
            self.oldest_first.push_back(id);
        }
        if self.oldest_first.len() > REMEMBERED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.remembered.remove(&oldest);
        }
    }
}

fn print(message: &Message, before: &str, after: &str) {
    let time = DateTime::parse_from_rfc3339(&message.date)
        .map(|date| time_shown(date.with_timezone(&Local), Local::now()))
        .unwrap_or_default();
    let to = message.recipient.as_ref().map(|recipient| format!(" to {recipient}")).unwrap_or_default();
    let line = format!("{time} {}{to}: {before}{}{after}", message.sender, message.content);
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{}", harmless(&line)).and_then(|()| stdout.flush()).is_err() {
        // Whoever read it is gone, as `head` is after its lines.
        std::process::exit(0);
    }
}

/// The time of day, and the day too when it is not that of `now`.
fn time_shown(date: DateTime<Local>, now: DateTime<Local>) -> String {
    let is_today = date.date_naive() == now.date_naive();
    date.format(if is_today { "%H:%M" } else { "%Y-%m-%d %H:%M" }).to_string()
}

/// A message must not move the cursor, ring the bell or turn the direction in which its line is read: what does so is
/// shown as a mark, and further lines are indented so that nobody can write in the name of others.
pub fn harmless(text: &str) -> String {
    let is_harmful = |c: char| c != '\n' && (c.is_control() || TURNS_OR_BREAKS.contains(&c));
    let mark = |c: char| if is_harmful(c) { '\u{FFFD}' } else { c };
    text.chars().map(mark).collect::<String>().replace('\n', "\n      ")
}
