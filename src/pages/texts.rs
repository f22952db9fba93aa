//! Every word of the pages, in two languages: `templates/texts/`. A key that is missing or not known fails a test.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

static ENGLISH: LazyLock<Texts> = LazyLock::new(|| parse(include_str!("../../templates/texts/en.json")));
static SPANISH: LazyLock<Texts> = LazyLock::new(|| parse(include_str!("../../templates/texts/es.json")));

fn parse(json: &str) -> Texts {
    serde_json::from_str(json).expect("texts are part of the binary, and a test reads them")
}

/// A language that the pages speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Spanish,
}

impl Language {
    /// The language that an `Accept-Language` header wants most; English if it wants neither. Only the language
    /// counts, not its country: "es-MX" is Spanish. (The crate `accept-language` compares whole tags.)
    pub(super) fn preferred(header: &str) -> Self {
        let mut best = (0.0, Language::English);
        for wanted in header.split(',') {
            let (tag, parameters) = wanted.split_once(';').unwrap_or((wanted, ""));
            let quality = match parameters.trim().strip_prefix("q=") {
                Some(quality) => quality.parse().unwrap_or(0.0),
                None => 1.0,
            };
            let language = tag.trim().split('-').next().unwrap_or_default();
            let known = match language.to_ascii_lowercase().as_str() {
                "en" | "*" => Language::English,
                "es" => Language::Spanish,
                _ => continue,
            };
            // The first of equals wins, as in the list that people order in their browser.
            if quality > best.0 {
                best = (quality, known);
            }
        }
        best.1
    }

    pub(super) fn texts(self) -> &'static Texts {
        match self {
            Language::English => &ENGLISH,
            Language::Spanish => &SPANISH,
        }
    }

    /// For the headers; the pages have it from their texts.
    pub(super) fn tag(self) -> &'static str {
        &self.texts().language
    }
}

/// The words of one language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Texts {
    /// Its tag: "en".
    pub(super) language: String,
    pub(super) page: PageTexts,
    pub(super) script: ScriptTexts,
    pub(super) realtime: RealtimeTexts,
    /// By the last part of a problem's `type`.
    pub(super) problems: BTreeMap<String, ProblemTexts>,
    pub(super) status: StatusTexts,
}

impl Texts {
    /// The JSON for `templates/static/page.js` of the chat, safe to stand inside a `<script>` element: nothing in it can
    /// end the element, or begin a comment in it.
    pub(super) fn script_json(&self) -> String {
        self.json_of(&self.script)
    }

    /// The same for the page of the status.
    pub(super) fn status_json(&self) -> String {
        self.json_of(&self.status)
    }

    fn json_of(&self, texts: &impl Serialize) -> String {
        #[derive(Serialize)]
        struct ForScript<'a, T> {
            language: &'a str,
            #[serde(flatten)]
            texts: &'a T,
        }
        script_safe(&ForScript { language: &self.language, texts })
    }

    /// The same for `templates/static/realtime.js`.
    pub(super) fn realtime_json(&self) -> String {
        self.json_of(&self.realtime.script)
    }
}

fn script_safe(texts: &impl Serialize) -> String {
    serde_json::to_string(texts).unwrap_or_default().replace('<', "\\u003c")
}

/// What the page `/docs/realtime` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RealtimeTexts {
    pub(super) title: String,
    pub(super) intro: String,
    pub(super) rest_docs: String,
    pub(super) specification: String,
    pub(super) chat: String,
    pub(super) skip: String,
    pub(super) transports: String,
    pub(super) transport_websocket: String,
    pub(super) transport_events: String,
    pub(super) transport_socket_io: String,
    pub(super) transport_changes: String,
    pub(super) try_it: String,
    pub(super) try_needs_script: String,
    pub(super) topic: String,
    pub(super) kind_room: String,
    pub(super) kind_inbox: String,
    pub(super) kind_all: String,
    pub(super) name: String,
    pub(super) after: String,
    pub(super) after_hint: String,
    pub(super) connect: String,
    pub(super) disconnect: String,
    pub(super) follow: String,
    pub(super) unfollow: String,
    pub(super) message_legend: String,
    pub(super) connection_legend: String,
    pub(super) raw_legend: String,
    pub(super) sender: String,
    pub(super) to: String,
    pub(super) to_room: String,
    pub(super) to_person: String,
    pub(super) content: String,
    pub(super) send: String,
    pub(super) frame: String,
    pub(super) send_frame: String,
    pub(super) frames_here: String,
    pub(super) frames_empty: String,
    pub(super) clear: String,
    pub(super) from_server: String,
    pub(super) from_client: String,
    pub(super) example: String,
    pub(super) use_example: String,
    pub(super) everywhere: String,
    pub(super) all_streams: String,
    pub(super) all_sockets: String,
    pub(super) only_websocket: String,
    pub(super) close_codes: String,
    pub(super) close_code: String,
    pub(super) close_why: String,
    pub(super) close_then: String,
    /// By their `type`.
    pub(super) frames: BTreeMap<String, String>,
    /// By their code.
    pub(super) closes: BTreeMap<u16, CloseTexts>,
    pub(super) script: RealtimeScriptTexts,
}

/// A close code: why, and what to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseTexts {
    pub(super) why: String,
    pub(super) then: String,
}

/// What `templates/static/realtime.js` says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RealtimeScriptTexts {
    pub(super) closed: String,
    pub(super) connecting: String,
    pub(super) catching_up: String,
    pub(super) live: String,
    pub(super) opened: String,
    pub(super) ended: String,
    pub(super) not_json: String,
}

/// A kind of problem: its title, and what to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProblemTexts {
    pub(super) title: String,
    pub(super) text: String,
}

/// What the templates say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageTexts {
    pub(super) skip_to_message: String,
    pub(super) places: String,
    pub(super) menu: String,
    pub(super) close: String,
    pub(super) rooms: String,
    pub(super) open_room: String,
    pub(super) open: String,
    pub(super) inbox_of: String,
    pub(super) conversation: String,
    pub(super) messages_in_room: String,
    pub(super) messages_in_inbox: String,
    pub(super) older: String,
    pub(super) newest: String,
    pub(super) sent_to: String,
    pub(super) your_name: String,
    pub(super) your_name_for_direct: String,
    pub(super) recipient: String,
    pub(super) recipient_optional: String,
    pub(super) message: String,
    pub(super) send: String,
    pub(super) read_only: String,
    pub(super) not_secret: String,
    pub(super) not_secret_signed_in: String,
    pub(super) signed_out: String,
    pub(super) empty_title: String,
    pub(super) empty_text: String,
    pub(super) empty_inbox_text: String,
    pub(super) script_off: String,
    pub(super) refresh_now: String,
    pub(super) refresh_by_itself: String,
    pub(super) refreshing: String,
    pub(super) write: String,
    pub(super) error_content: String,
    pub(super) error_sender: String,
    pub(super) error_recipient: String,
    pub(super) error_room: String,
    pub(super) error_id: String,
    pub(super) error_too_many: String,
    pub(super) error_unavailable: String,
    pub(super) error_refused: String,
    pub(super) error_signed_out: String,
    pub(super) messages_unavailable: String,
    pub(super) not_found_title: String,
    pub(super) not_found_text: String,
    pub(super) no_room_title: String,
    pub(super) no_room_text: String,
    pub(super) no_inbox_title: String,
    pub(super) no_inbox_text: String,
    pub(super) bad_form_title: String,
    pub(super) bad_form_text: String,
    pub(super) too_many_title: String,
    pub(super) too_many_text: String,
    pub(super) unavailable_title: String,
    pub(super) unavailable_text: String,
    pub(super) try_again: String,
    pub(super) go_home: String,
    pub(super) direct_messages: String,
    pub(super) write_to_person: String,
    pub(super) error_sender_empty: String,
    pub(super) error_recipient_empty: String,
    pub(super) error_content_empty: String,
    pub(super) newer: String,
    pub(super) search: String,
    pub(super) search_in: String,
    pub(super) search_words: String,
    pub(super) search_results: String,
    pub(super) search_on: String,
    pub(super) nothing_found: String,
    pub(super) nothing_found_so_far: String,
    pub(super) error_search: String,
    pub(super) search_hint: String,
    pub(super) back_to_chat: String,
    pub(super) skip_to_results: String,
    pub(super) no_message_title: String,
    pub(super) no_message_text: String,
}

/// What `templates/static/` says; those scripts know the fields by these names.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptTexts {
    pub(super) live: String,
    pub(super) catching_up: String,
    pub(super) offline: String,
    pub(super) offline_detail: String,
    pub(super) jump: String,
    pub(super) jump_one: String,
    pub(super) jump_other: String,
    pub(super) today: String,
    pub(super) yesterday: String,
    pub(super) outbox: String,
    pub(super) sending: String,
    pub(super) waiting: String,
    pub(super) kept: String,
    pub(super) retry: String,
    pub(super) delete: String,
    pub(super) write_in_room: String,
    pub(super) write_to_person: String,
    pub(super) write: String,
    pub(super) sent_to: String,
    pub(super) open_inbox: String,
    pub(super) error_content_empty: String,
    pub(super) error_content_long: String,
    pub(super) error_sender: String,
    pub(super) error_recipient: String,
    pub(super) error_too_many: String,
    pub(super) error_unavailable: String,
    pub(super) error_refused: String,
    pub(super) error_sender_empty: String,
    pub(super) error_recipient_empty: String,
    pub(super) unread: String,
    pub(super) unread_one: String,
    pub(super) unread_other: String,
    pub(super) here_one: String,
    pub(super) here_other: String,
    pub(super) notify: String,
    pub(super) notify_on: String,
    pub(super) notify_blocked: String,
    pub(super) mention_in: String,
    pub(super) direct_from: String,
    pub(super) link_copied: String,
    pub(super) searching: String,
    pub(super) search_failed: String,
    pub(super) loading: String,
    pub(super) loading_failed: String,
    pub(super) unconfirmed: String,
}

/// What the page of the status says, in its template and in `templates/static/status.js`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusTexts {
    pub(super) title: String,
    pub(super) script_off: String,
    pub(super) live: String,
    pub(super) live_text: String,
    pub(super) catching_up: String,
    pub(super) catching_up_text: String,
    pub(super) stale: String,
    pub(super) stale_text: String,
    pub(super) unreachable: String,
    pub(super) unreachable_text: String,
    pub(super) lag: String,
    pub(super) delay: String,
    pub(super) half: String,
    pub(super) nearly_all: String,
    pub(super) p99: String,
    pub(super) messages_per_second: String,
    pub(super) deliveries_per_second: String,
    pub(super) per_second: String,
    pub(super) connections: String,
    pub(super) behind: String,
    pub(super) last_quarter: String,
    pub(super) now: String,
    pub(super) minutes_ago: String,
    pub(super) seconds_ago: String,
    pub(super) plot_label: String,
    pub(super) servers: String,
    pub(super) server: String,
    pub(super) state: String,
    pub(super) lag_short: String,
    pub(super) deliveries: String,
    pub(super) deliveries_short: String,
    pub(super) runs_since: String,
    pub(super) heard: String,
    pub(super) this_server: String,
    pub(super) busiest: String,
    pub(super) room: String,
    pub(super) messages: String,
    pub(super) here: String,
    pub(super) no_messages: String,
    pub(super) by_transport: String,
    pub(super) transport: String,
    pub(super) invalid: String,
    pub(super) invalid_text: String,
    pub(super) field: String,
    pub(super) documents: String,
    pub(super) no_invalid: String,
}

/// Puts values into a text: `fill("Inbox of {user}", "user", "Ana")` is "Inbox of Ana".
pub(super) fn fill(text: &str, name: &str, value: &str) -> String {
    text.replace(&format!("{{{name}}}"), value)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn both_languages_are_complete_and_have_the_same_places_for_values() {
        assert_eq!([ENGLISH.language.as_str(), SPANISH.language.as_str()], ["en", "es"]);
        let [english, spanish]: [Value; 2] = [
            serde_json::from_str(include_str!("../../templates/texts/en.json")).unwrap(),
            serde_json::from_str(include_str!("../../templates/texts/es.json")).unwrap(),
        ];
        for part in ["page", "script", "status"] {
            for (key, text) in english[part].as_object().unwrap() {
                let other = spanish[part][key].as_str().unwrap();
                assert_eq!(values_of(text.as_str().unwrap()), values_of(other), "{key}");
            }
        }
    }

    #[test]
    fn every_text_is_said_somewhere() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
        let folders = ["templates", "templates/static", "src/pages"].map(|folder| format!("{root}{folder}"));
        let mut sources = String::new();
        for file in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
            let path = file.unwrap().path();
            let is_source = path.extension().is_some_and(|kind| kind == "html" || kind == "js" || kind == "rs");
            if is_source && !path.ends_with("texts.rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
        let english: Value = serde_json::from_str(include_str!("../../templates/texts/en.json")).unwrap();
        for key in ["page", "script"].iter().flat_map(|part| english[part].as_object().unwrap().keys()) {
            let named = format!(".{key}");
            let mut places = sources.match_indices(&named).map(|(at, _)| &sources[at + named.len()..]);
            let is_said = places.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(is_said, "{key} is translated and never said");
        }
    }

    fn values_of(text: &str) -> Vec<&str> {
        let parts = text.split('{').skip(1);
        parts.map(|part| part.split('}').next().unwrap()).collect()
    }

    #[test]
    fn the_language_is_what_the_reader_wants_most() {
        let table = [
            ("", Language::English),
            ("es", Language::Spanish),
            ("es-MX,es;q=0.9,en;q=0.8", Language::Spanish),
            ("en-GB, es;q=0.9", Language::English),
            ("de, ES-ar;q=0.5, en;q=0.4", Language::Spanish),
            ("fr;q=1, *;q=0.5", Language::English),
            ("es;q=0, en;q=0.1", Language::English),
            ("es;q=NaN, en;q=inf", Language::English),
            (";;,,q=", Language::English),
        ];
        for (header, expected) in table {
            assert_eq!(Language::preferred(header), expected, "{header}");
        }
    }

    #[test]
    fn no_text_can_end_the_script_element() {
        for texts in [&*ENGLISH, &*SPANISH] {
            let scripts = [texts.script_json(), texts.realtime_json(), texts.status_json()];
            assert!(scripts.iter().all(|json| !json.contains('<')));
            assert!(texts.script_json().contains(&texts.script.live));
        }
    }
}
