//! What one client follows and has read: the same for every transport.

use std::sync::Arc;

use futures::future::BoxFuture;
use smallvec::SmallVec;

use crate::{
    cursor::Cursor,
    event::Change,
    feed::{Entry, Feed, Gap, Reader, Reading},
    message::{FieldError, RoomName, UserName},
    presence::Presence,
    replay::{Replay, Replays, Unanswerable},
    topic::Topic,
};

/// The topics and the place with which a client joins.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// What to follow. None is legal: topics can be added later.
    pub topics: Vec<Topic>,
    /// Go on after this cursor, as the client wrote it; absent or empty: from now on.
    pub after: Option<String>,
    /// In which of its rooms the client is counted as present; absent: in every room that it follows. A page follows
    /// rooms that nobody looks at, to count what is unread in them.
    pub here: Option<Vec<RoomName>>,
}

impl Interest {
    /// Reads the query of a URL: `room`, `inbox` and `here` (which may be repeated), `all=true` and `after`. An empty
    /// `here` means nowhere. Other names are left to others.
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
                ("here", "") => drop(interest.here.get_or_insert_default()),
                ("here", name) => match RoomName::normalise(name) {
                    Ok(room) => interest.here.get_or_insert_default().push(room),
                    Err(error) => errors.push(FieldError::new("here", error)),
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
    /// Events, in order, at least one; nearly always just one.
    Events(SmallVec<[Told; 1]>),
    /// Caught up: live from here.
    Ready(Cursor),
    /// A gap that can not be filled: reload the history. What follows comes after the cursor.
    Reset(Cursor, &'static str),
}

/// One event, as one change to this client.
#[derive(Debug, Clone)]
pub struct Told {
    /// The event.
    pub entry: Arc<Entry>,
    /// What it is to the client.
    pub change: Change,
    place: u64,
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

/// Where subscriptions read.
#[derive(Clone)]
pub struct Sources {
    /// The live log.
    pub live: Feed,
    /// What lies before it.
    pub replays: Replays,
    /// Where who follows a room is counted.
    pub presence: Presence,
    /// The most topics of one subscription.
    pub topics_max: usize,
}

/// One client's view of the log.
pub struct Subscription {
    sources: Sources,
    reader: Reader,
    /// See [`Interest::here`].
    here: Option<Box<[RoomName]>>,
    phase: Phase,
    /// Told before anything else.
    pending: Option<Output>,
    is_ready: bool,
    /// Replays in a row that held nothing: a client must not ask for ever where each ends before the log begins.
    in_vain: u32,
}

/// Which log the reader is in.
enum Phase {
    /// The live one.
    Live,
    /// None: a replay has been asked for.
    Asking(BoxFuture<'static, Result<Arc<Replay>, Unanswerable>>),
    /// A replay, which is held as long as it is read.
    Replaying { _kept: Arc<Replay> },
}

/// See [`Subscription::in_vain`].
const IN_VAIN_MAX: u32 = 3;

impl Subscription {
    /// Joins the log. A cursor that can not be read, or that nothing can answer, becomes a `reset`, never an error.
    ///
    /// # Errors
    /// When there are too many topics.
    pub fn open(sources: &Sources, interest: Interest) -> Result<Self, TopicsError> {
        // Counted before anything is done with them: a URL can name thousands.
        let mut topics = interest.topics;
        topics.sort_unstable();
        topics.dedup();
        let topics_max = sources.topics_max;
        let is_in_too_many = interest.here.as_ref().is_some_and(|here| here.len() > topics_max);
        if topics.len() > topics_max || is_in_too_many {
            return Err(TopicsError::TooMany { topics_max });
        }
        let mut pending = None;
        let after = interest.after.filter(|after| !after.is_empty());
        let mut reader = match after.map(|after| after.parse::<Cursor>()) {
            Some(Ok(cursor)) => sources.live.reader_after(cursor),
            None => sources.live.reader_from_now(),
            Some(Err(_)) => {
                let reader = sources.live.reader_from_now();
                pending = Some(Output::Reset(reader.position(), "the cursor is not one of this server"));
                reader
            }
        };
        for topic in topics {
            reader.follow(topic);
        }
        let sources = sources.clone();
        let here = interest.here.map(Vec::into_boxed_slice);
        let opened = Self { sources, reader, here, phase: Phase::Live, pending, is_ready: false, in_vain: 0 };
        for topic in opened.reader.topics() {
            opened.enter(topic);
        }
        Ok(opened)
    }

    /// Follows one more topic from the returned cursor on.
    ///
    /// # Errors
    /// When that is one too many.
    pub fn follow(&mut self, topic: Topic) -> Result<Cursor, TopicsError> {
        let topics_max = self.sources.topics_max;
        if self.reader.topics().binary_search(&topic).is_err() && self.reader.topics().len() >= topics_max {
            return Err(TopicsError::TooMany { topics_max });
        }
        let position = self.position();
        if self.reader.follow(topic.clone()) {
            self.enter(&topic);
        }
        Ok(position)
    }

    /// Follows one topic less.
    pub fn unfollow(&mut self, topic: &Topic) {
        if self.reader.unfollow(topic) {
            self.leave(topic);
        }
    }

    fn enter(&self, topic: &Topic) {
        if self.is_counted_in(topic) {
            self.sources.presence.enter(topic);
        }
    }

    fn leave(&self, topic: &Topic) {
        if self.is_counted_in(topic) {
            self.sources.presence.leave(topic);
        }
    }

    /// The same answer whenever it is asked, so that who enters a room leaves it, and only then.
    fn is_counted_in(&self, topic: &Topic) -> bool {
        let Some(here) = &self.here else { return true };
        matches!(topic, Topic::Room(room) if here.contains(room))
    }

    /// What is followed.
    pub fn topics(&self) -> &[Topic] {
        self.reader.topics()
    }

    /// Whether the client will be told to reload before anything else.
    pub fn owes_reset(&self) -> bool {
        matches!(self.pending, Some(Output::Reset(..)))
    }

    /// The cursor that stands for everything that [`Self::take`] gave out, for every topic.
    pub fn position(&mut self) -> Cursor {
        if self.is_ready && self.pending.is_none() {
            self.reader.settle();
        }
        self.reader.position()
    }

    /// What is to be told now, in order; nothing when the client knows all there is. One call gives a bounded
    /// number, so that a client that is far behind is served in turn with the others.
    pub fn take(&mut self) -> Option<Output> {
        if let Some(output) = self.pending.take() {
            return Some(output);
        }
        loop {
            let is_live = matches!(self.phase, Phase::Live);
            if let Phase::Asking(_) = self.phase {
                return None;
            }
            match self.reader.read() {
                Reading::Waiting if is_live => return None,
                Reading::Gap(Gap::Evicted) if is_live && self.in_vain < IN_VAIN_MAX => {
                    self.in_vain += 1;
                    self.is_ready = false;
                    self.phase = Phase::Asking(Box::pin(self.sources.replays.after(self.reader.position())));
                }
                Reading::Gap(_) if !is_live => {
                    // It was emptied: see `replay`.
                    return Some(self.reset("what followed the cursor was read too slowly"));
                }
                Reading::Gap(gap) => return Some(self.reset(gap.as_str())),
                Reading::Entries(entries) if entries.is_empty() && is_live => {
                    if self.is_ready {
                        return None;
                    }
                    (self.is_ready, self.in_vain) = (true, 0);
                    return Some(Output::Ready(self.reader.position()));
                }
                Reading::Entries(entries) if !entries.is_empty() => {
                    self.in_vain = 0;
                    let told: SmallVec<[Told; 1]> =
                        entries.into_iter().filter_map(|(place, entry)| self.told(place, entry)).collect();
                    if !told.is_empty() {
                        return Some(Output::Events(told));
                    }
                }
                // A replay is at its end: the live log goes on there.
                Reading::Entries(_) | Reading::Waiting => {
                    self.reader.continue_in(&self.sources.live);
                    self.phase = Phase::Live;
                }
            }
        }
    }

    fn told(&self, place: u64, entry: Arc<Entry>) -> Option<Told> {
        let change = entry.change_for(|topic| self.reader.follows(topic))?;
        Some(Told { entry, change, place })
    }

    /// Whether what follows is in the live log. Else it is read, or asked for, from a replay.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// When the first of `events` was written, for [`Deliveries::note`](crate::telemetry::Deliveries::note); `None` while the client catches up.
    pub(super) fn written_millis(&self, events: &[Told]) -> Option<u64> {
        let first = events.first().filter(|_| self.is_ready && self.is_live())?;
        first.entry.event.as_ref().map(|event| event.at_millis)
    }

    /// Whether [`Self::take`] may have something before the log turns: a client that is up to date need not ask again.
    pub fn has_more(&self) -> bool {
        !self.is_ready || !matches!(self.phase, Phase::Live) || self.reader.has_more()
    }

    /// Forgets that events after `last`, one of those that [`Self::take`] gave out at last, were given out: they will be
    /// given out again.
    pub fn go_back_to(&mut self, last: &Told) {
        self.reader.go_back_to(last.place, &last.entry);
    }

    fn reset(&mut self, reason: &'static str) -> Output {
        // Who asks for a replay still stands in the live log.
        if let Phase::Replaying { .. } = self.phase {
            self.reader.continue_in(&self.sources.live);
        }
        self.phase = Phase::Live;
        self.reader.restart();
        (self.is_ready, self.in_vain) = (false, 0);
        Output::Reset(self.reader.position(), reason)
    }

    /// Waits until [`Self::take`] may have something. Returns `false` when the log will never turn again. May be
    /// dropped at any time and called again.
    pub async fn turn(&mut self) -> bool {
        match &mut self.phase {
            Phase::Live => self.reader.turn().await,
            Phase::Replaying { .. } => true,
            Phase::Asking(asked) => {
                match asked.await {
                    Ok(replay) => {
                        self.reader.continue_in(replay.feed());
                        self.phase = Phase::Replaying { _kept: replay };
                    }
                    Err(Unanswerable(reason)) => {
                        self.pending = Some(self.reset(reason));
                    }
                }
                true
            }
        }
    }
}

/// However a session ends, it is here no longer.
impl Drop for Subscription {
    fn drop(&mut self) {
        for topic in self.reader.topics() {
            self.leave(topic);
        }
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
        assert_eq!(interest.here, None);
        let here = |query: &[(&'static str, &'static str)]| Interest::parse(query.iter().copied()).unwrap().here;
        assert_eq!(here(&[("here", "")]), Some(vec![]));
        assert_eq!(here(&[("here", " dev "), ("here", "")]), Some(vec![RoomName::parse("dev").unwrap()]));
        let bad = [("room", ""), ("all", "maybe"), ("room[$ne]", "x"), ("here", "system.x")];
        assert_eq!(Interest::parse(bad.into_iter()).unwrap_err().len(), 3);
    }
}
