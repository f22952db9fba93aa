//! Starts what a test needs, and reads like a user.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
    time::Duration,
};

use clap::Parser;
use corriente::{app::App, config::Config};
use futures::{SinkExt, StreamExt};
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client, Collection, Database,
    bson::{Document, doc, oid::ObjectId},
};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long a test waits for something that must happen, in seconds: far longer than it takes on a busy machine.
pub const PATIENCE_SECS: u64 = 20;

/// The mongod that all tests of this binary share. It goes with the last test that uses it: a static would leave its
/// files behind.
static SHARED: Mutex<Weak<ReplicaSet>> = Mutex::const_new(Weak::new());

pub async fn mongo() -> Arc<ReplicaSet> {
    let mut shared = SHARED.lock().await;
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let options = Options { test_commands: true, ..Options::default() };
    let started = ReplicaSet::start(options, |sentence| eprintln!("{sentence}")).await.expect("mongod starts");
    // The cache of a temporary set is small, and several tests at once write documents of 15 MB.
    let client = Client::with_uri_str(started.uri()).await.expect("a client");
    let wider = doc! { "setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=1GB" };
    client.database("admin").run_command(wider).await.expect("a wider cache");
    let started = Arc::new(started);
    *shared = Arc::downgrade(&started);
    started
}

/// A database that nobody uses yet, for what must stand in it before a server starts. Keeps its mongod alive.
pub struct FreshDatabase {
    database: Database,
    mongo: Arc<ReplicaSet>,
}

impl FreshDatabase {
    pub async fn new() -> Self {
        let mongo = mongo().await;
        let client = Client::with_uri_str(mongo.uri()).await.expect("a client");
        Self { database: client.database(&format!("test_{}", ObjectId::new().to_hex())), mongo }
    }

    /// Where it is, for other programs.
    pub fn uri(&self) -> &str {
        self.mongo.uri()
    }

    /// With a collection that somebody else made: without validator and pre-images.
    pub async fn with_collection() -> Self {
        let fresh = Self::new().await;
        fresh.create_collection("messages").await.expect("a collection");
        fresh
    }
}

impl Deref for FreshDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Asks again and again until `ask` has an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECS);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE_SECS} s");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A server of its own on a database of its own.
pub struct TestServer {
    pub url: String,
    /// The database, as any other program sees it.
    pub database: Database,
    pub mongo: Arc<ReplicaSet>,
    app: Option<App>,
    http: reqwest::Client,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these flags besides.
    pub async fn start_with(flags: &[&str]) -> Self {
        let database = format!("test_{}", ObjectId::new().to_hex());
        Self::start_on(&database, flags).await
    }

    /// On a database that may exist already.
    pub async fn start_on(database: &str, flags: &[&str]) -> Self {
        let mongo = mongo().await;
        let port: &[&str] = if flags.contains(&"--port") { &[] } else { &["--port", "0"] };
        let own = ["corriente", "--database", database];
        let config = Config::parse_from(own.iter().chain(port).chain(flags));
        let app = App::start(&config, mongo.uri()).await.expect("the server starts");
        let client = Client::with_uri_str(mongo.uri()).await.expect("a client of our own");
        Self {
            url: app.url(),
            database: client.database(database),
            mongo,
            app: Some(app),
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(PATIENCE_SECS))
                .build()
                .expect("an HTTP client"),
        }
    }

    pub async fn stop(mut self) {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
    }

    /// The collection as any other program sees it.
    pub fn messages(&self) -> Collection<Document> {
        self.database.collection("messages")
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// The whole answer to `GET path`.
    pub async fn fetch(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    /// The whole answer to `POST /api/messages`.
    pub async fn send(&self, body: Value) -> Answer {
        Answer::to(self.request(Method::POST, "/api/messages").json(&body)).await
    }

    /// One line of `/metrics`, such as `corriente_events_total{kind="insert"}`; 0 when it is not there.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = self.fetch("/metrics").await.text;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        answer(response).await
    }

    pub async fn post(&self, body: Value) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}/api/messages", self.url)).json(&body);
        answer(request.send().await.expect("an answer")).await
    }

    /// Sends a message to a room, and returns what is stored.
    pub async fn say(&self, room: &str, content: &str) -> Value {
        let (status, message) = self.post(json!({ "room": room, "sender": "Ana", "content": content })).await;
        assert_eq!(status, 201, "{message}");
        message
    }

    /// Opens a WebSocket with this query and waits until it is live.
    pub async fn follow(&self, query: &str) -> Follower {
        let mut follower = self.join(query).await;
        follower.expect("ready").await;
        follower
    }

    /// Opens a WebSocket with this query.
    pub async fn join(&self, query: &str) -> Follower {
        Follower::join(&self.url, query).await
    }
}

/// A whole HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn to(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.expect("a whole answer") }
    }

    /// A header; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }

    /// Where the link of this relation leads.
    pub fn link(&self, relation: &str) -> Option<String> {
        let suffix = format!(">; rel=\"{relation}\"");
        let links = self.header("link").split(", ");
        links.filter_map(|link| Some(link.strip_prefix('<')?.strip_suffix(&suffix)?.to_owned())).next()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts that this is a problem of this status and kind, complete as RFC 9457 has it, and returns it.
    pub fn expect_problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for words in ["title", "detail"] {
            assert!(problem[words].as_str().is_some_and(|text| !text.is_empty()), "{words} of {problem}");
        }
        problem
    }
}

/// The contents of a page's messages, oldest first.
pub fn contents(page: &Answer) -> Vec<String> {
    assert_eq!(page.status, 200, "{}", page.text);
    let page = page.json();
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["content"].as_str().expect("a text").to_owned()).collect()
}

/// A query of these pairs.
pub fn query_of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

async fn answer(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.expect("a whole answer");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, body)
}

/// One WebSocket.
pub struct Follower {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Follower {
    /// Opens a WebSocket with this query at the server of this URL.
    pub async fn join(url: &str, query: &str) -> Self {
        let url = format!("{}/ws?{query}", url.replacen("http", "ws", 1));
        let (socket, _) = connect_async(url).await.expect("the handshake succeeds");
        Self { socket }
    }

    /// The next frame of the protocol; `None` when the server has closed.
    pub async fn next(&mut self) -> Option<Value> {
        let next = async {
            loop {
                match self.socket.next().await? {
                    Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        timeout(Duration::from_secs(PATIENCE_SECS), next).await.expect("a frame within the deadline")
    }

    /// The next frame, which must be of this type. Positions, which come by the clock, are passed over.
    pub async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed instead of {kind}"));
            if frame["type"] == "position" && kind != "position" {
                continue;
            }
            assert_eq!(frame["type"], kind, "{frame}");
            return frame;
        }
    }

    /// The contents of the next `count` created messages. `ready` may stand anywhere among them: what was acknowledged
    /// a moment ago may be still on its way.
    pub async fn expect_contents(&mut self, count: usize) -> Vec<String> {
        let mut contents = Vec::with_capacity(count);
        while contents.len() < count {
            let frame = self.next().await.expect("the socket stays open");
            match frame["type"].as_str() {
                Some("created") => contents.push(frame["message"]["content"].as_str().expect("a text").to_owned()),
                Some("ready" | "position") => {}
                _ => panic!("{frame} instead of a created message"),
            }
        }
        contents
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the frame is sent");
    }

    /// Asserts that nothing of `kinds` comes before the created message with `content`, which the test makes last.
    pub async fn expect_next_content(&mut self, content: &str) {
        let frame = self.expect("created").await;
        assert_eq!(frame["message"]["content"], content, "{frame}");
    }
}
