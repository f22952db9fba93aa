//! What one client follows and has read: the same for every transport.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    cursor::Cursor,
    event::Change,
    feed::{Entry, Feed, Reader, Reading},
    message::{FieldError, RoomName, UserName},
    topic::Topic,
};

/// The topics and the place with which a client joins.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// What to follow. None is legal: topics can be added later.
    pub topics: Vec<Topic>,
    /// Go on after this cursor, as the client wrote it; absent or empty: from now on.
    pub after: Option<String>,
}

impl Interest {
    /// Reads the query of a URL: `room`, `inbox` (both may be repeated), `all=true` and `after`. Other names are
    /// left to others.
    ///
    /// # Errors
    /// The parameters at fault.
    pub fn parse<'a>(query: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<FieldError>> {
        let mut interest = Self::default();
        let mut errors = Vec::new();
        for (name, value) in query {
            match (name, value) {
                ("after", after) => interest.after = Some(after.to_owned()),
                ("all", "true" | "1" | "") => interest.topics.push(Topic::All),
                ("all", "false" | "0") => {}
                ("all", _) => errors.push(FieldError::new("all", "must be true or false")),
                ("room", name) => match RoomName::normalise(name) {
                    Ok(room) => interest.topics.push(Topic::Room(room)),
                    Err(error) => errors.push(FieldError::new("room", error)),
                },
                ("inbox", name) => match UserName::normalise(name) {
                    Ok(user) => interest.topics.push(Topic::Inbox(user)),
                    Err(error) => errors.push(FieldError::new("inbox", error)),
                },
                _ => {}
            }
        }
        if errors.is_empty() { Ok(interest) } else { Err(errors) }
    }
}

/// Something to tell the client.
#[derive(Debug, Clone)]
pub enum Output {
    /// One event, as one change.
    Event(Arc<Entry>, Change),
    /// Caught up: live from here.
    Ready(Cursor),
    /// A gap that can not be filled: reload the history. What follows comes after the cursor.
    Reset(Cursor, &'static str),
}

/// A client can not follow this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// Over the bound.
    #[error("at most {topics_max} topics can be followed over one connection; open another one, or follow all")]
    TooMany {
        /// The bound.
        topics_max: usize,
    },
}

/// One client's view of the log.
#[derive(Debug)]
pub struct Subscription {
    reader: Reader,
    topics_max: usize,
    pending: VecDeque<Output>,
    is_ready: bool,
}

impl Subscription {
    /// Joins the log. A cursor that can not be read, or that the log can not answer, becomes a `reset`, never an error.
    ///
    /// # Errors
    /// When there are more than `topics_max` topics.
    pub fn open(feed: &Feed, interest: Interest, topics_max: usize) -> Result<Self, TopicsError> {
        let mut pending = VecDeque::new();
        let after = interest.after.filter(|after| !after.is_empty());
        let mut reader = match after.map(|after| after.parse::<Cursor>()) {
            Some(Ok(cursor)) => feed.reader_after(cursor),
            None => feed.reader_from_now(),
            Some(Err(_)) => {
                let reader = feed.reader_from_now();
                pending.push_back(Output::Reset(reader.position(), "the cursor is not one of this server"));
                reader
            }
        };
        for topic in interest.topics {
            reader.follow(topic);
        }
        if reader.topics().len() > topics_max {
            return Err(TopicsError::TooMany { topics_max });
        }
        Ok(Self { reader, topics_max, pending, is_ready: false })
    }

    /// Follows one more topic from the returned cursor on.
    ///
    /// # Errors
    /// When that is one too many.
    pub fn follow(&mut self, topic: Topic) -> Result<Cursor, TopicsError> {
        if !self.reader.topics().contains(&topic) && self.reader.topics().len() >= self.topics_max {
            return Err(TopicsError::TooMany { topics_max: self.topics_max });
        }
        self.reader.follow(topic);
        Ok(self.position())
    }

    /// Follows one topic less.
    pub fn unfollow(&mut self, topic: &Topic) {
        self.reader.unfollow(topic);
    }

    /// The cursor that stands for everything that [`Self::take`] gave out, for every topic.
    pub fn position(&self) -> Cursor {
        self.reader.position()
    }

    /// What is to be told now, in order; nothing when the client knows all there is. One call gives a bounded
    /// number, so that a client that is far behind is served in turn with the others.
    pub fn take(&mut self) -> Vec<Output> {
        if !self.pending.is_empty() {
            return self.pending.drain(..).collect();
        }
        match self.reader.read() {
            Reading::Waiting => Vec::new(),
            Reading::Gap(reason) => {
                self.is_ready = false;
                vec![Output::Reset(self.reader.position(), reason)]
            }
            Reading::Entries(entries) if entries.is_empty() => {
                if self.is_ready {
                    return Vec::new();
                }
                self.is_ready = true;
                vec![Output::Ready(self.reader.position())]
            }
            Reading::Entries(entries) => {
                let told = entries.into_iter().filter_map(|entry| {
                    let event = entry.event.as_ref()?;
                    let change = event.change_for(|topic| self.reader.follows(topic))?;
                    Some(Output::Event(entry, change))
                });
                told.collect()
            }
        }
    }

    /// Waits until [`Self::take`] may have something. Returns `false` when the log will never turn again. May be
    /// dropped at any time and called again.
    pub async fn turn(&mut self) -> bool {
        self.reader.turn().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_topics_and_a_place() {
        let query = [("room", "dev"), ("room", " general "), ("inbox", "Ana"), ("after", "x"), ("v", "1")];
        let interest = Interest::parse(query.into_iter()).unwrap();
        assert_eq!(interest.topics.len(), 3);
        assert_eq!(interest.after.as_deref(), Some("x"));
        let bad = [("room", ""), ("all", "maybe"), ("room[$ne]", "x")];
        assert_eq!(Interest::parse(bad.into_iter()).unwrap_err().len(), 2);
    }
}
