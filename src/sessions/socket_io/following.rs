//! What one socket follows, and from where: topic by topic, in one order.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    cursor::Cursor,
    message::FieldError,
    problem::Problem,
    sessions::{
        frame::topic_of,
        subscription::{Interest, Sources, Subscription, TopicsError},
    },
    topic::Topic,
};

/// How long the place of `auth` counts for topics that are followed without a place of their own. A client that comes back
/// follows them one by one, and must not miss what happened in the second while it was followed.
const PLACE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long to wait for more topics before the past of the first ones is told. Without it, it would be told again.
const GATHERING_TIME: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Following {
    sources: Sources,
    /// The place that the client came back with.
    place: Option<String>,
    began: Instant,
    /// `None` until a topic is followed: what comes before is then not lost.
    pub(super) subscription: Option<Subscription>,
    /// When to begin to tell.
    pub(super) tells_from: Instant,
}

/// One topic more.
pub(super) struct Followed {
    pub(super) topic: Topic,
    /// Its events come from here on.
    pub(super) cursor: Cursor,
    /// What was followed already may be told once more.
    pub(super) is_anew: bool,
}

impl Following {
    pub(super) fn new(sources: Sources, place: Option<String>) -> Self {
        let now = Instant::now();
        let place = place.filter(|place| !place.is_empty());
        Self { sources, place, began: now, subscription: None, tells_from: now }
    }

    /// Follows one more topic.
    pub(super) fn follow(&mut self, fields: &Map<String, Value>) -> Result<Followed, Problem> {
        let topic = topic_in(fields)?;
        let own = match fields.get("after") {
            None | Some(Value::Null) => None,
            Some(Value::String(after)) => Some(after.clone()).filter(|after| !after.is_empty()),
            Some(_) => return Err(Problem::invalid(vec![FieldError::new("after", "must be a cursor")])),
        };
        let is_back = self.began.elapsed() < PLACE_TIME_MAX;
        let after = own.or_else(|| self.place.clone().filter(|_| is_back));
        let too_many = |error| Problem::invalid(vec![FieldError::new("room", error)]);
        if let Some(subscription) = &mut self.subscription {
            match after.as_deref().map_or(Start::Here, |after| Start::of(after, subscription)) {
                Start::Here => {
                    let cursor = subscription.follow(topic.clone()).map_err(too_many)?;
                    return Ok(Followed { topic, cursor, is_anew: false });
                }
                Start::At(after) => {
                    // What it followed already is told from there on once more: there is one place for all topics, and a
                    // client applies by id.
                    let topics = [subscription.topics(), std::slice::from_ref(&topic)].concat();
                    return self.open(Interest { topics, after: Some(after) }, topic).map_err(too_many);
                }
            }
        }
        self.open(Interest { topics: vec![topic.clone()], after }, topic).map_err(too_many)
    }

    fn open(&mut self, interest: Interest, topic: Topic) -> Result<Followed, TopicsError> {
        let is_behind = interest.after.is_some();
        let mut subscription = Subscription::open(&self.sources, interest)?;
        let cursor = subscription.position();
        self.subscription = Some(subscription);
        if is_behind {
            self.tells_from = Instant::now() + GATHERING_TIME;
        }
        Ok(Followed { topic, cursor, is_anew: true })
    }

    /// The client was told to load everything anew: with what it came back is of no use any more.
    pub(super) fn forget_place(&mut self) {
        self.place = None;
    }

    /// Follows one topic less.
    pub(super) fn unfollow(&mut self, fields: &Map<String, Value>) -> Result<Topic, Problem> {
        let topic = topic_in(fields)?;
        if let Some(subscription) = &mut self.subscription {
            subscription.unfollow(&topic);
        }
        Ok(topic)
    }

    /// Waits until there may be something to tell; for ever when nothing is followed. May be dropped and called again.
    pub(super) async fn turn(&mut self) -> bool {
        match &mut self.subscription {
            Some(subscription) => subscription.turn().await,
            None => std::future::pending().await,
        }
    }
}

/// Where the events of one more topic begin.
enum Start {
    /// Where the subscription is.
    Here,
    /// Before that: it goes back.
    At(String),
}

impl Start {
    fn of(after: &str, subscription: &mut Subscription) -> Self {
        let here = subscription.position();
        if subscription.owes_reset() {
            // Everything will be loaded anew, this topic too.
            return Self::Here;
        }
        match after.parse::<Cursor>() {
            Ok(after) if after == here => Self::Here,
            // It lies ahead, and there is one place for all topics: what is told in between is known to the client.
            Ok(after) if after.epoch == here.epoch && after.time > here.time => Self::Here,
            // Which of two places within one time comes first only the log knows, so both are told again.
            Ok(after) if after.epoch == here.epoch && after.time == here.time => {
                Self::At(Cursor::boundary(here.epoch, here.time).to_string())
            }
            _ => Self::At(after.to_owned()),
        }
    }
}

fn topic_in(fields: &Map<String, Value>) -> Result<Topic, Problem> {
    topic_of(fields).map_err(Problem::from)
}
