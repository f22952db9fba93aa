//! How the server is, as a page: whole without a script, kept up to date by `templates/static/status.js`.

use std::time::Duration;

use askama::Template;
use chrono::{DateTime, Utc};
use poem::{Response, handler, http::StatusCode, web::Data};

use super::{
    answer,
    place::Place,
    texts::{Language, StatusTexts, Texts, fill},
    visitor::Visitor,
};
use crate::{
    base_path::BasePath,
    presence::KnownServer,
    vitals::{BusyRoom, Now, Vitals},
};

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    base: BasePath,
    texts: &'static Texts,
    script_texts: String,
    /// The state as the scripts know it, and in words.
    state: String,
    word: &'static str,
    sentence: &'static str,
    lag: String,
    delay: String,
    messages: String,
    deliveries: String,
    connections: u64,
    behind: u64,
    plots: [Plot; 4],
    servers: Vec<ServerRow>,
    rooms: Vec<RoomRow>,
    transports: Vec<(&'static str, u64)>,
    invalid: Vec<(&'static str, u64)>,
}

/// Its id, its title, and what its lines are, if there are several.
type Plot = (&'static str, &'static str, Vec<(&'static str, &'static str)>);

struct ServerRow {
    name: String,
    version: String,
    is_this: bool,
    state: String,
    word: String,
    lag: String,
    connections: u64,
    deliveries: String,
    started_at: String,
    heard: String,
}

struct RoomRow {
    name: String,
    path: String,
    messages: u64,
    here: u64,
}

/// `GET /status`
#[handler]
pub(crate) async fn show_status(Data(vitals): Data<&Vitals>, visitor: Visitor) -> Response {
    let page = StatusPage::new(vitals.now().await, visitor.base, visitor.language);
    answer::page(StatusCode::OK, visitor.language, &page)
}

impl StatusPage {
    fn new(now: Now, base: BasePath, language: Language) -> Self {
        let texts = language.texts();
        let status = &texts.status;
        let state = state_of(now.stream.as_str());
        let (word, sentence) = words_of(&state, status);
        let shown = Numbers(language);
        let newest = now.newest.as_ref();
        let rate = |of: fn(&crate::vitals::Sample) -> f64| shown.count(newest.map_or(0.0, of));
        Self {
            base,
            texts,
            script_texts: texts.status_json(),
            word,
            sentence,
            lag: shown.duration(now.lag),
            delay: newest.and_then(|sample| sample.delay_median).map_or("–".into(), |delay| shown.duration(delay)),
            messages: rate(|sample| sample.messages_per_second),
            deliveries: rate(|sample| sample.deliveries_per_second),
            connections: now.connections.iter().map(|(_, count)| count).sum(),
            behind: now.readers_behind,
            plots: [
                ("lag", &status.lag, vec![]),
                ("delay", &status.delay, vec![(&status.half, "first"), (&status.nearly_all, "second")]),
                ("traffic", &status.per_second, vec![(&status.deliveries, "first"), (&status.messages, "second")]),
                ("connections", &status.connections, vec![]),
            ],
            servers: now.servers.iter().map(|server| ServerRow::new(server, language)).collect(),
            rooms: now.rooms.into_iter().map(RoomRow::from).collect(),
            transports: now.connections,
            invalid: now.invalid_documents,
            state,
        }
    }
}

impl ServerRow {
    fn new(server: &KnownServer, language: Language) -> Self {
        let KnownServer { report, said_secs_ago, is_this } = server;
        let texts = &language.texts().status;
        let shown = Numbers(language);
        let state = state_of(&report.stream);
        Self {
            name: report.name.clone(),
            version: report.version.clone(),
            is_this: *is_this,
            // Another version may know other words.
            word: match state.as_str() {
                "live" | "catching_up" | "stale" => words_of(&state, texts).0.to_owned(),
                _ => report.stream.clone(),
            },
            state,
            lag: shown.duration(Duration::from_millis(report.lag_millis)),
            connections: report.connections,
            deliveries: shown.count(report.deliveries_per_second),
            started_at: shown.date(&report.started_at),
            heard: match is_this {
                true => texts.now.clone(),
                false => fill(&texts.seconds_ago, "seconds", &said_secs_ago.to_string()),
            },
        }
    }
}

impl From<BusyRoom> for RoomRow {
    fn from(BusyRoom { room, messages, here }: BusyRoom) -> Self {
        let place = Place::Room(room);
        Self { name: place.name().to_owned(), path: place.path(), messages, here }
    }
}

/// `catching up` as a word that scripts and styles can use.
fn state_of(stream: &str) -> String {
    stream.replace(' ', "_")
}

fn words_of(state: &str, texts: &'static StatusTexts) -> (&'static str, &'static str) {
    match state {
        "live" => (&texts.live, &texts.live_text),
        "stale" => (&texts.stale, &texts.stale_text),
        _ => (&texts.catching_up, &texts.catching_up_text),
    }
}

/// Numbers as the readers of a language write them; the script of the page does the same.
struct Numbers(Language);

impl Numbers {
    fn duration(&self, duration: Duration) -> String {
        let secs = duration.as_secs_f64();
        match secs {
            ..0.01 => format!("{} ms", self.decimal(secs * 1_000.0)),
            ..1.0 => format!("{:.0} ms", secs * 1_000.0),
            ..120.0 => format!("{} s", self.decimal(secs)),
            _ => format!("{:.0} min", secs / 60.0),
        }
    }

    fn count(&self, count: f64) -> String {
        if count < 100.0 { self.decimal(count) } else { format!("{count:.0}") }
    }

    /// With one digit behind the point, if that is not 0.
    fn decimal(&self, number: f64) -> String {
        let text = format!("{number:.1}");
        let text = text.strip_suffix(".0").unwrap_or(&text);
        match self.0 {
            Language::English => text.to_owned(),
            Language::Spanish => text.replace('.', ","),
        }
    }

    /// In UTC: where the reader is, only their browser knows.
    fn date(&self, date: &DateTime<Utc>) -> String {
        date.format("%Y-%m-%d %H:%M UTC").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_say_enough() {
        let (english, spanish) = (Numbers(Language::English), Numbers(Language::Spanish));
        for (millis, text) in
            [(0, "0 ms"), (3, "3 ms"), (45, "45 ms"), (1_250, "1.2 s"), (90_000, "90 s"), (600_000, "10 min")]
        {
            assert_eq!(english.duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(spanish.duration(Duration::from_micros(3_260)), "3,3 ms");
        assert_eq!([english.count(0.0), english.count(2.5), english.count(12_345.6)], ["0", "2.5", "12346"]);
    }
}
