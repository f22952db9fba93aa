//! The server: the history over HTTP, and one WebSocket after the other.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use reqwest::{Response, StatusCode, Url, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::{connect_async, tungstenite::Message as Packet};

use crate::{
    outbox::Outbox,
    screen::{Screen, harmless},
};

/// How long a request, or the opening of a WebSocket, may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// The server says something every 25 seconds, if only its position. Silence for longer than this is a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// A server that asks to come back later is taken at its word up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How much of the past is shown.
const HISTORY_MESSAGES: &str = "20";

/// What is shown.
pub enum Place {
    Room(String),
    Inbox(String),
}

impl Place {
    /// As a parameter of every URL.
    fn pair(&self) -> (&'static str, &str) {
        match self {
            Place::Room(name) => ("room", name),
            Place::Inbox(name) => ("inbox", name),
        }
    }
}

/// A message, as it is in the history and in frames.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    pub id: String,
    pub content: String,
    pub sender: String,
    pub recipient: Option<String>,
    pub date: String,
}

/// What the server says. Types and fields that are not known are ignored, as the protocol asks for.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Frame {
    Created {
        cursor: String,
        message: Message,
    },
    Updated {
        cursor: String,
        message: Message,
    },
    Deleted {
        cursor: String,
        id: String,
    },
    Ready {
        cursor: String,
    },
    Position {
        cursor: String,
    },
    Reset,
    Sent {
        id: String,
    },
    Error {
        id: Option<String>,
        problem: Problem,
    },
    #[serde(other)]
    Unknown,
}

/// What of a problem a client goes by.
#[derive(Deserialize)]
pub struct Problem {
    pub status: u16,
    pub detail: String,
}

/// How a step ended.
pub enum End {
    /// The history is loaded.
    Joined,
    /// The input has ended, and all of it is stored.
    Done,
    /// What happened can not be told any more.
    Reset,
    /// The server is not there, or asks to come back after `at_least`.
    Broken { why: anyhow::Error, at_least: Duration },
}

impl From<anyhow::Error> for End {
    fn from(why: anyhow::Error) -> Self {
        let at_least = why.downcast_ref::<Later>().map_or(Duration::ZERO, |later| later.after);
        Self::Broken { why, at_least }
    }
}

/// The server can not answer now, or not so many requests.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {status}")]
struct Later {
    status: StatusCode,
    after: Duration,
}

impl Later {
    /// `None`: this answer is for good.
    fn of(answer: &Response) -> Option<Self> {
        let status = answer.status();
        let is_for_now = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let secs = answer.headers().get(RETRY_AFTER).and_then(|secs| secs.to_str().ok()?.parse().ok());
        let after = Duration::from_secs(secs.unwrap_or(0)).min(RETRY_AFTER_MAX);
        (is_for_now || status.is_server_error()).then_some(Self { status, after })
    }
}

pub struct Server {
    url: Url,
    place: Place,
    http: reqwest::Client,
    live_at: Cell<Option<Instant>>,
}

impl Server {
    pub fn new(url: &str, place: Place) -> anyhow::Result<Self> {
        let url: Url = url.parse().context("not a URL")?;
        if url.scheme() != "http" {
            bail!("this example speaks http only; give a URL such as http://127.0.0.1:3000");
        }
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
        Ok(Self { url, place, http, live_at: Cell::new(None) })
    }

    /// How long the last connection has been live, if it ever was; said once.
    pub fn take_life(&self) -> Option<Duration> {
        self.live_at.take().map(|live_at| live_at.elapsed())
    }

    /// Shows the newest messages. `cursor` is then that which joins them to the stream.
    pub async fn load_history(&self, cursor: &mut Option<String>, screen: &mut Screen) -> End {
        match self.load(screen).await {
            Ok(at) => {
                *cursor = Some(at);
                End::Joined
            }
            Err(why) => why.into(),
        }
    }

    async fn load(&self, screen: &mut Screen) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Message>,
            cursor: String,
        }
        let url = self.url.join("/api/messages")?;
        let request = self.http.get(url).query(&[self.place.pair(), ("limit", HISTORY_MESSAGES)]);
        let answer = request.send().await?;
        if let Some(later) = Later::of(&answer) {
            return Err(later.into());
        }
        if answer.status().is_client_error() {
            let problem: Problem = answer.json().await?;
            // Asked again it would say the same.
            eprintln!("{}", harmless(&problem.detail));
            std::process::exit(1);
        }
        let page: Page = answer.error_for_status()?.json().await?;
        for message in page.messages {
            screen.created(message);
        }
        Ok(page.cursor)
    }

    /// Where it talks.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// One connection, from `cursor` on, which is moved along.
    pub async fn follow(&self, cursor: &mut Option<String>, outbox: &mut Outbox, screen: &mut Screen) -> End {
        match self.talk(cursor, outbox, screen).await {
            Ok(end) => end,
            Err(why) => why.into(),
        }
    }

    async fn talk(&self, cursor: &mut Option<String>, outbox: &mut Outbox, screen: &mut Screen) -> anyhow::Result<End> {
        let (socket, _) = timeout(ANSWER_MAX, connect_async(self.socket_url(cursor.as_deref()).as_str()))
            .await
            .context("the server does not answer")??;
        let (mut writer, mut reader) = socket.split();
        let mut heard_at = Instant::now();
        outbox.repeat_all();
        loop {
            if outbox.is_done() {
                let _ = timeout(ANSWER_MAX, writer.close()).await;
                return Ok(End::Done);
            }
            let packet = tokio::select! {
                packet = reader.next() => packet.context("the connection was closed")??,
                frame = outbox.next(&self.place, screen) => {
                    let Some(frame) = frame else { continue };
                    timeout(ANSWER_MAX, writer.send(Packet::text(frame))).await.context("nothing can be sent")??;
                    continue;
                }
                () = sleep_until(heard_at + SILENCE_MAX) => bail!("the server has fallen silent"),
            };
            heard_at = Instant::now();
            let text = match packet {
                Packet::Text(text) => text,
                Packet::Close(goodbye) => match goodbye {
                    Some(goodbye) => bail!("{}: {}", goodbye.code, goodbye.reason),
                    None => bail!("the server closed the connection"),
                },
                _ => continue,
            };
            let at = match serde_json::from_str(&text).context("this is no frame")? {
                Frame::Created { cursor, message } => {
                    outbox.seen(&message.id);
                    screen.created(message);
                    cursor
                }
                Frame::Updated { cursor, message } => {
                    screen.updated(message);
                    cursor
                }
                Frame::Deleted { cursor, id } => {
                    screen.deleted(&id);
                    cursor
                }
                Frame::Ready { cursor } => {
                    self.live_at.set(Some(Instant::now()));
                    screen.note("live");
                    cursor
                }
                Frame::Position { cursor } => cursor,
                Frame::Reset => return Ok(End::Reset),
                Frame::Sent { id } => {
                    outbox.stored(&id);
                    continue;
                }
                Frame::Error { id, problem } => {
                    outbox.refused(id.as_deref(), &problem, screen);
                    continue;
                }
                Frame::Unknown => continue,
            };
            // After the frame was shown: the cursor says what this client has seen.
            *cursor = Some(at);
        }
    }

    fn socket_url(&self, cursor: Option<&str>) -> Url {
        let mut url = self.url.clone();
        // From `http` to `ws`: both are special schemes, so this can not fail.
        let _ = url.set_scheme("ws");
        url.set_path("/ws");
        let (kind, name) = self.place.pair();
        url.query_pairs_mut().clear().append_pair(kind, name).append_pair("after", cursor.unwrap_or_default());
        url
    }
}

/// A `send` frame of these fields.
pub fn send_frame(id: &str, sender: &str, to: (&str, &str), content: &str) -> String {
    let (kind, name) = to;
    let mut frame = serde_json::json!({ "type": "send", "id": id, "sender": sender, "content": content });
    frame[kind] = Value::from(name);
    frame.to_string()
}
