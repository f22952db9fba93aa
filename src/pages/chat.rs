//! The page of a room or an inbox.

use askama::Template;
use futures::future::join;
use poem::{
    Body, Response, Result, handler,
    http::{HeaderValue, StatusCode, header},
    web::{Data, Path, Query},
};
use serde::Deserialize;

use super::{
    Pages, answer, errors,
    form::{FormErrors, FormView, SentForm, new_id},
    part::{ChatQuery, Part},
    place::{Place, encoded},
    rooms::{ListedRoom, listed_beside},
    row::{Row, rows_of},
    text::Piece,
    texts::{Texts, fill},
    visitor::{Visitor, remember},
};
use crate::{
    base_path::BasePath,
    listener::{ClientNetwork, Writer},
    message::{NewMessage, RoomName, UserName},
    mongo::{HistoryPlace, InsertError, ReadError},
    problem::CHALLENGE,
};

/// What the two forms "open" ask for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenQuery {
    room: Option<String>,
    inbox: Option<String>,
    /// With `inbox`: whom its form is to write to.
    to: Option<String>,
}

/// `/` leads to the room `general`, or to the room or inbox that is asked for by name.
#[handler]
pub(crate) fn index(query: Result<Query<OpenQuery>>, visitor: Visitor) -> Response {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let place = match (query.inbox, query.room) {
        (Some(user), _) => inbox(&user),
        (None, Some(room)) => room_named(&room),
        (None, None) => Ok(Place::Room(RoomName::general())),
    };
    match place {
        Ok(place) => match query.to.as_deref().map(str::trim).filter(|to| place.is_inbox() && !to.is_empty()) {
            Some(to) => answer::see_other(&visitor.base, &format!("{}?to={}", place.path(), encoded(to))),
            None => answer::see_other(&visitor.base, &place.path()),
        },
        Err(not_found) => not_found(&visitor),
    }
}

/// The messages of a room, and a form that writes to it.
#[handler]
pub(crate) async fn show_room(
    name: Result<Path<String>>,
    query: Result<Query<ChatQuery>>,
    Data(pages): Data<&Pages>,
    visitor: Visitor,
) -> Response {
    let name = text_of(name);
    match room_named(&name) {
        Ok(place) => pages.show(place, &name, query, visitor).await,
        Err(not_found) => not_found(&visitor),
    }
}

/// The direct messages to and from one person, and a form that writes as that person.
#[handler]
pub(crate) async fn show_inbox(
    name: Result<Path<String>>,
    query: Result<Query<ChatQuery>>,
    Data(pages): Data<&Pages>,
    visitor: Visitor,
) -> Response {
    let name = text_of(name);
    match inbox(&name) {
        Ok(place) => pages.show(place, &name, query, visitor).await,
        Err(not_found) => not_found(&visitor),
    }
}

/// What the form of [`show_room`] sends.
#[handler]
pub(crate) async fn post_room(
    name: Result<Path<String>>,
    body: Body,
    Data(pages): Data<&Pages>,
    visitor: Visitor,
    from: ClientNetwork,
) -> Response {
    match room_named(&text_of(name)) {
        Ok(place) => pages.post(place, body, visitor, from).await,
        Err(not_found) => not_found(&visitor),
    }
}

/// What the form of [`show_inbox`] sends.
#[handler]
pub(crate) async fn post_inbox(
    name: Result<Path<String>>,
    body: Body,
    Data(pages): Data<&Pages>,
    visitor: Visitor,
    from: ClientNetwork,
) -> Response {
    match inbox(&text_of(name)) {
        Ok(place) => pages.post(place, body, visitor, from).await,
        Err(not_found) => not_found(&visitor),
    }
}

/// A name that is no UTF-8 is no name, like an empty one.
fn text_of(name: Result<Path<String>>) -> String {
    name.map(|Path(name)| name).unwrap_or_default()
}

/// The page that says that there is no such place.
type NotFound = fn(&Visitor) -> Response;

fn room_named(name: &str) -> Result<Place, NotFound> {
    RoomName::normalise(name).map(Place::Room).map_err(|_| errors::no_such_room as NotFound)
}

fn inbox(name: &str) -> Result<Place, NotFound> {
    UserName::normalise(name).map(Place::Inbox).map_err(|_| errors::no_such_inbox as NotFound)
}

impl Pages {
    async fn show(&self, place: Place, name: &str, query: Result<Query<ChatQuery>>, visitor: Visitor) -> Response {
        let path = place.path();
        // One place has one address.
        let Ok(Query(query)) = query else {
            return answer::see_other(&self.base, &path);
        };
        if place.name() != name {
            return answer::see_other(&self.base, &path);
        }
        if query.q.is_some() {
            return self.search(&place, &query, &visitor).await;
        }
        // Mistyped, or of another version of the server: the newest messages are the best answer.
        let Some(part) = Part::parse(&query) else {
            return answer::see_other(&self.base, &path);
        };
        match self.conversation(&place, &visitor, &part).await {
            Ok(Some(conversation)) => {
                let to = query.to.unwrap_or_else(|| conversation.partner(&place, &visitor));
                let form = FormView::empty(&place, &visitor, to);
                let mut page = self.page(&place, &visitor, form, Some(conversation));
                page.is_refreshing = query.refresh.is_some() && page.after.is_empty();
                if matches!(visitor.writer, Writer::Unknown(_)) {
                    page.closed.get_or_insert(&page.texts.page.signed_out);
                }
                answer::page(StatusCode::OK, visitor.language, &page)
            }
            Ok(None) => errors::no_such_message(&visitor, &path),
            Err(error) => errors::unavailable(&visitor, &error, &path),
        }
    }

    async fn post(&self, place: Place, body: Body, visitor: Visitor, from: ClientNetwork) -> Response {
        let sent = match SentForm::read(body).await {
            Ok(sent) => sent,
            Err(status) => return errors::bad_form(&visitor, status),
        };
        if self.inserter.is_read_only() {
            return self.give_back(StatusCode::FORBIDDEN, from, &place, &visitor, FormView::default()).await;
        }
        let texts = &visitor.language.texts().page;
        let Ok(draft) = visitor.writer.sign(sent.draft(&place)) else {
            // The text is kept for whoever has been signed out meanwhile.
            let form = FormView::returned(sent, FormErrors::of_form(texts.error_signed_out.clone()));
            let mut page = self.give_back(StatusCode::UNAUTHORIZED, from, &place, &visitor, form).await;
            page.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            return page;
        };
        let new = match NewMessage::parse(draft) {
            Ok(new) => new,
            Err(faults) => {
                let errors = FormErrors::of_fields(&faults, &sent, texts);
                let mut form = FormView::returned(sent, errors);
                if faults.iter().any(|fault| fault.field == "id") {
                    form.id = new_id();
                }
                return self.give_back(StatusCode::UNPROCESSABLE_ENTITY, from, &place, &visitor, form).await;
            }
        };
        if let Err(too_many) = self.rates.message(from, &new.sender) {
            let form = FormView::returned(sent, FormErrors::of_form(texts.error_too_many.clone()));
            let page = self.give_back(StatusCode::TOO_MANY_REQUESTS, from, &place, &visitor, form).await;
            return errors::retry_after(page, too_many.retry_after_secs);
        }
        let sender = new.sender.clone();
        let mut inserted = self.inserter.insert(new.clone()).await;
        if let Err(InsertError::Conflict { .. }) = inserted {
            // The same form, but not the same words: sent, gone back to, and sent with another text.
            inserted = self.inserter.insert(NewMessage { id: None, ..new }).await;
        }
        match inserted {
            Ok(_) => {
                // The message of who is signed in is in their inbox, from whichever one it was written.
                let is_signed = visitor.writer.name().is_some() && place.is_inbox();
                let place = if is_signed { Place::Inbox(sender.clone()) } else { place };
                sent_from(&visitor, &place, &sender, &sent)
            }
            Err(error @ (InsertError::Unknown { .. } | InsertError::Overloaded)) => {
                let errors = FormErrors::of_form(texts.error_unavailable.clone());
                let mut form = FormView::returned(sent, errors);
                if let InsertError::Unknown { id } = error {
                    form.id = id.to_string();
                }
                errors::retry_later(self.give_back(StatusCode::SERVICE_UNAVAILABLE, from, &place, &visitor, form).await)
            }
            Err(refused) => {
                let reason = fill(&texts.error_refused, "reason", &refused.to_string());
                let form = FormView::returned(sent, FormErrors::of_form(reason));
                self.give_back(StatusCode::UNPROCESSABLE_ENTITY, from, &place, &visitor, form).await
            }
        }
    }

    /// The same page again, with what was written: also when its messages can not be read.
    async fn give_back(
        &self,
        status: StatusCode,
        from: ClientNetwork,
        place: &Place,
        visitor: &Visitor,
        form: FormView,
    ) -> Response {
        // It reads like a GET, and so has its turn like one.
        let conversation = match self.rates.turn(from).await {
            Ok(_turn) => self.conversation(place, visitor, &Part::Newest).await.ok().flatten(),
            Err(_) => None,
        };
        answer::page(status, visitor.language, &self.page(place, visitor, form, conversation))
    }

    /// What a page shows; `None` when there is no such message.
    async fn conversation(
        &self,
        place: &Place,
        visitor: &Visitor,
        part: &Part,
    ) -> Result<Option<Conversation>, ReadError> {
        // The place in the stream is taken before the read, which is at least as new: what happens between the two
        // comes once more over the stream, and nothing is missed.
        let cursor = self.status.position();
        let scope = place.scope();
        let (page, rooms) = join(part.read(&self.history, &scope, cursor.time), self.listed_rooms()).await;
        let place_text = |place: Option<HistoryPlace>| place.map(|place| place.to_string()).unwrap_or_default();
        Ok(page?.map(|page| Conversation {
            cursor: cursor.to_string(),
            before: place_text(page.before),
            after: place_text(page.after),
            rows: rows_of(page.messages, visitor.name_at(place)),
            rooms: listed_beside(&rooms, place),
        }))
    }

    fn page<'a>(
        &'a self,
        place: &'a Place,
        visitor: &Visitor,
        mut form: FormView,
        conversation: Option<Conversation>,
    ) -> ChatPage<'a> {
        let texts = visitor.language.texts();
        let is_read = conversation.is_some();
        if let Some(name) = visitor.writer.name() {
            form.sender = name.to_string();
        }
        let Conversation { cursor, before, after, rows, rooms } = conversation.unwrap_or_default();
        let log_label = match place {
            Place::Room(room) => fill(&texts.page.messages_in_room, "room", room.as_str()),
            Place::Inbox(user) => fill(&texts.page.messages_in_inbox, "user", user.as_str()),
        };
        ChatPage {
            base: &self.base,
            texts,
            script_texts: texts.script_json(),
            title: place.title(texts),
            log_label,
            is_read,
            is_refreshing: false,
            closed: self.inserter.is_read_only().then_some(texts.page.read_only.as_str()),
            is_name_given: visitor.writer != Writer::Claimed,
            cursor,
            before,
            after,
            q: String::new(),
            rows,
            blank: Row::blank(),
            topics_max: self.topics_max,
            rooms: if is_read { rooms } else { listed_beside(&[], place) },
            own_inbox: visitor.name.clone().map(Place::Inbox),
            mongosh: place.mongosh_line(&self.collection),
            place,
            form,
        }
    }
}

/// After a message was stored: back to the page, which knows the name and, in an inbox, the other person again. Whoever
/// looks into an inbox is not its owner for that; whoever writes from it, and is known by no other name, is.
fn sent_from(visitor: &Visitor, place: &Place, sender: &UserName, sent: &SentForm) -> Response {
    let mut path = place.path();
    if place.is_inbox() {
        path = format!("{path}?to={}", encoded(sent.recipient()));
    }
    let mut response = answer::see_other(&visitor.base, &path);
    let is_remembered = !place.is_inbox() || visitor.name.is_none();
    if is_remembered && let Ok(cookie) = HeaderValue::try_from(remember(sender, &visitor.base)) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// What was read for a page.
#[derive(Default)]
struct Conversation {
    /// From where the stream goes on.
    cursor: String,
    /// Where older messages are; empty when there are none.
    before: String,
    /// Where newer messages are; empty when there are none.
    after: String,
    rows: Vec<Row>,
    rooms: Vec<ListedRoom>,
}

impl Conversation {
    /// Whom an inbox talked with last: most likely whom it writes to next. To somebody else's inbox, its owner.
    fn partner(&self, place: &Place, visitor: &Visitor) -> String {
        match (place, self.rows.last()) {
            (Place::Inbox(user), _) if visitor.name_at(place) != Some(user) => user.to_string(),
            (Place::Inbox(user), Some(row)) if row.sender == user.as_str() => row.recipient.clone(),
            (Place::Inbox(_), Some(row)) => row.sender.clone(),
            _ => String::new(),
        }
    }
}

#[derive(Template)]
#[template(path = "chat.html")]
struct ChatPage<'a> {
    base: &'a BasePath,
    texts: &'static Texts,
    script_texts: String,
    place: &'a Place,
    title: String,
    log_label: String,
    /// Empty when MongoDB could not be read; then the page is not live.
    cursor: String,
    before: String,
    after: String,
    /// What is searched for: nothing yet.
    q: String,
    rows: Vec<Row>,
    /// For the browser to fill.
    blank: Row,
    /// How many topics one connection of the page may follow.
    topics_max: usize,
    rooms: Vec<ListedRoom>,
    /// The inbox of who reads, if their name is known.
    own_inbox: Option<Place>,
    form: FormView,
    mongosh: String,
    /// `false`: MongoDB could not be read.
    is_read: bool,
    is_refreshing: bool,
    /// Why there is no form.
    closed: Option<&'static str>,
    /// Whether people sign in, so that nobody can choose under which name to write.
    is_name_given: bool,
}
