//! Which part of a history is asked for, and the links that lead on from it.

use super::field;
use crate::{
    base_path::BasePath,
    cursor::ClusterTime,
    message::{FieldError, RoomName, SearchWords, UserName},
    mongo::{History, HistoryPlace, Page, ReadError, Scope},
};

/// A part of what a [`Scope`] holds.
#[derive(Debug)]
pub(super) enum Part {
    /// The newest, or those before a place.
    Before(Option<HistoryPlace>),
    /// Those after a place.
    After(HistoryPlace),
    /// Those about a message.
    Around(String),
    /// The newest that contain words, or those before a place. The words also as they were written.
    With(SearchWords, String, Option<HistoryPlace>),
}

impl Part {
    /// Reads the parameters, of which not all go together.
    pub(super) fn parse(
        q: Option<String>,
        before: Option<String>,
        after: Option<String>,
        around: Option<String>,
    ) -> Result<Self, Vec<FieldError>> {
        for (name, is_given) in [("before", before.is_some()), ("after", after.is_some()), ("q", q.is_some())] {
            if around.is_some() && is_given {
                return Err(field("around", format!("can not be asked for together with `{name}`")));
            }
        }
        let place = |name: &'static str, text: Option<String>| -> Result<Option<HistoryPlace>, Vec<FieldError>> {
            text.map(|text| text.parse().map_err(|error| field(name, error))).transpose()
        };
        let (before, after) = (place("before", before)?, place("after", after)?);
        match (q, after, around) {
            (None, None, None) => Ok(Part::Before(before)),
            (None, Some(_), _) if before.is_some() => {
                Err(field("after", "can not be asked for together with `before`"))
            }
            (None, Some(after), _) => Ok(Part::After(after)),
            (Some(_), Some(_), _) => {
                Err(field("after", "can not be asked for together with `q`, which leads to older ones"))
            }
            (Some(q), None, _) => {
                let words = SearchWords::parse(&q).map_err(|error| field("q", error))?;
                Ok(Part::With(words, q, before))
            }
            (None, None, Some(id)) => Ok(Part::Around(id)),
        }
    }

    /// Reads it. `None`: the message is not there.
    pub(super) async fn read(
        &self,
        history: &History,
        scope: &Scope,
        limit: usize,
        at_least: ClusterTime,
    ) -> Result<Option<Page>, ReadError> {
        match self {
            Part::Before(before) => history.page(scope, limit, before.as_ref(), at_least).await.map(Some),
            Part::After(after) => history.page_after(scope, limit, after, at_least).await.map(Some),
            Part::Around(id) => history.page_around(scope, limit, id, at_least).await,
            Part::With(words, _, before) => {
                history.search(scope, words, limit, before.as_ref(), at_least).await.map(Some)
            }
        }
    }

    /// The header `Link`: the next older page is the next one, as it is for whoever reads from the newest on.
    pub(super) fn link(
        &self,
        base: &BasePath,
        scope: &Scope,
        limit: u32,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Option<String> {
        let link = |name: &str, place: &str, relation: &str| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            match scope {
                Scope::All => {}
                Scope::Room(room) => {
                    query.append_pair("room", room.as_str());
                }
                Scope::Inbox(user) => {
                    query.append_pair("inbox", user.as_str());
                }
                Scope::Conversation(user, other) => {
                    query.append_pair("inbox", user.as_str()).append_pair("with", other.as_str());
                }
            }
            if let Part::With(_, q, _) = self {
                query.append_pair("q", q);
            }
            let query = query.append_pair("limit", &limit.to_string()).append_pair(name, place).finish();
            format!("<{base}/api/messages?{query}>; rel=\"{relation}\"")
        };
        let older = before.map(|place| link("before", place, "next"));
        let newer = after.map(|place| link("after", place, "prev"));
        let links: Vec<String> = older.into_iter().chain(newer).collect();
        (!links.is_empty()).then(|| links.join(", "))
    }
}

/// Whose messages are asked for.
pub(super) fn scope_of(room: Option<&str>, inbox: Option<&str>, with: Option<&str>) -> Result<Scope, Vec<FieldError>> {
    let user = |name: &'static str, text: &str| UserName::normalise(text).map_err(|error| field(name, error));
    match (room, inbox, with) {
        (None, None, None) => Ok(Scope::All),
        (Some(room), None, None) => RoomName::normalise(room).map(Scope::Room).map_err(|error| field("room", error)),
        (None, Some(inbox), None) => Ok(Scope::Inbox(user("inbox", inbox)?)),
        (None, Some(inbox), Some(with)) => Ok(Scope::Conversation(user("inbox", inbox)?, user("with", with)?)),
        (Some(_), Some(_), _) => Err(field("inbox", "can not be asked for together with a room")),
        (_, None, Some(_)) => Err(field("with", "needs an inbox")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_next_pages_of_the_same_question() {
        let scope = Scope::Room(RoomName::parse("a&b ñ").unwrap());
        let root = BasePath::default();
        let next = "</api/messages?room=a%26b+%C3%B1&limit=50&before=00>; rel=\"next\"";
        let prev = "</api/messages?room=a%26b+%C3%B1&limit=50&after=11>; rel=\"prev\"";
        let newest = Part::Before(None);
        assert_eq!(newest.link(&root, &scope, 50, Some("00"), None).as_deref(), Some(next));
        assert_eq!(newest.link(&root, &scope, 50, Some("00"), Some("11")), Some(format!("{next}, {prev}")));
        assert_eq!(newest.link(&root, &scope, 50, None, None), None);
        let search = Part::parse(Some("a+b".into()), None, None, None).unwrap();
        assert_eq!(
            search.link(&root, &Scope::All, 1, Some("00"), None).as_deref(),
            Some("</api/messages?q=a%2Bb&limit=1&before=00>; rel=\"next\"")
        );
    }
}
