//! Following topics over server-sent events.

use std::{process::Stdio, time::Duration};

use futures::StreamExt;
use mongodb::bson::doc;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::{Answer, PATIENCE_SECS, TestServer, eventually},
    programs::Language,
    relay::Relay,
};

/// One event stream over a bare socket.
struct Events {
    socket: BufReader<TcpStream>,
    /// The answer up to its empty line.
    head: String,
    /// What came of the stream and was not read yet.
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

impl Events {
    async fn open(server: &TestServer, query: &str, headers: &str) -> Self {
        let address = server.url.trim_start_matches("http://");
        let mut socket = BufReader::new(TcpStream::connect(address).await.unwrap());
        let request = format!("GET /api/events?{query} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        let reading = async { while !head.ends_with("\r\n\r\n") && socket.read_line(&mut head).await.unwrap() > 0 {} };
        timeout(Duration::from_secs(PATIENCE_SECS), reading).await.expect("the head comes at once");
        Self { socket, head, text: String::new() }
    }

    /// Opens one that must be answered with a stream, and passes over its first words.
    async fn follow(server: &TestServer, query: &str, headers: &str) -> Self {
        let mut events = Self::open(server, query, headers).await;
        assert!(events.head.starts_with("HTTP/1.1 200"), "{}", events.head);
        let retry = events.block().await.expect("a first word");
        assert!(retry.starts_with("retry: "), "{retry}");
        events
    }

    /// The next lines up to an empty one; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        let reading = async {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.text = rest;
                    return Some(block);
                }
                let mut size = String::new();
                self.socket.read_line(&mut size).await.ok()?;
                let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
                let mut chunk = vec![0; size + 2];
                self.socket.read_exact(&mut chunk).await.ok()?;
                if size == 0 {
                    assert_eq!(self.text, "", "the stream ends between events");
                    return None;
                }
                self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("whole characters"));
            }
        };
        timeout(Duration::from_secs(PATIENCE_SECS), reading).await.expect("an event within the deadline")
    }

    /// The next event; comments are passed over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                continue;
            }
            let mut lines = block.lines();
            let mut field = |name: &str| {
                let line = lines.next().unwrap_or_default();
                line.strip_prefix(name).unwrap_or_else(|| panic!("{line} has no {name}")).to_owned()
            };
            let (id, kind, data) = (field("id: "), field("event: "), field("data: "));
            assert_eq!(lines.next(), None, "{block}");
            let data: Value = serde_json::from_str(&data).expect("JSON on one line");
            assert_eq!((&data["cursor"], &data["type"]), (&json!(id), &json!(kind)), "{block}");
            return Some(Event { id, kind, data });
        }
    }

    async fn expect(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("ended instead of {kind}"));
            if event.kind == "position" && kind != "position" {
                continue;
            }
            assert_eq!(event.kind, kind, "{event:?}");
            return event;
        }
    }

    /// The contents of the next created messages, and the id of the last one's event.
    async fn expect_contents(&mut self, count: usize) -> (Vec<String>, String) {
        let (mut contents, mut last) = (Vec::new(), String::new());
        while contents.len() < count {
            let event = self.next().await.expect("the stream goes on");
            match event.kind.as_str() {
                "created" => {
                    contents.push(event.data["message"]["content"].as_str().unwrap().to_owned());
                    last = event.id;
                }
                "ready" | "position" => {}
                _ => panic!("{event:?} instead of a created message"),
            }
        }
        (contents, last)
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

async fn insert(server: &TestServer, contents: &[String]) {
    let documents = contents.iter().map(|content| doc! { "content": content, "sender": "Ana", "room": "general" });
    server.messages().insert_many(documents).await.unwrap();
}

#[tokio::test]
async fn the_head_comes_at_once_and_each_event_is_the_frame_of_the_websocket() {
    let server = TestServer::start().await;
    let mut socket = server.follow("room=dev").await;
    let mut events = Events::open(&server, "room=dev", "Accept-Encoding: gzip, br\r\n").await;
    let head = events.head.to_ascii_lowercase();
    for line in [
        "http/1.1 200 ok\r\n",
        "\r\ncontent-type: text/event-stream\r\n",
        "\r\ncache-control: no-store\r\n",
        "\r\nx-accel-buffering: no\r\n",
        "\r\ntransfer-encoding: chunked\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(!head.contains("content-encoding"), "{head}");
    let retry = events.block().await.unwrap();
    let millis: u32 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((2_000..4_000).contains(&millis), "{retry}");
    events.expect("ready").await;
    let content = "¡Hola!\nDos líneas\r\u{2028} y \"comillas\" </script>";
    server.say("dev", content).await;
    // The text as it came, byte for byte.
    let frame = loop {
        if let Message::Text(text) = socket.socket.next().await.unwrap().unwrap()
            && text.contains("created")
        {
            break text.to_string();
        }
    };
    let cursor = serde_json::from_str::<Value>(&frame).unwrap()["cursor"].as_str().unwrap().to_owned();
    assert_eq!(events.block().await.unwrap(), format!("id: {cursor}\nevent: created\ndata: {frame}"));
    server.messages().update_one(doc! {}, doc! { "$set": { "content": "edited" } }).await.unwrap();
    server.messages().delete_one(doc! {}).await.unwrap();
    assert_eq!(events.expect("updated").await.data, socket.expect("updated").await);
    assert_eq!(events.expect("deleted").await.data, socket.expect("deleted").await);
    assert_eq!(server.metric("corriente_connections{transport=\"sse\"}").await, 1);
    drop(events);
    let is_gone = async || (server.metric("corriente_connections{transport=\"sse\"}").await == 0).then_some(());
    eventually("the stream is not counted any more", is_gone).await;
    server.stop().await;
}

#[tokio::test]
async fn curl_shows_each_event_when_it_happens() {
    let server = TestServer::start().await;
    let url = format!("{}/api/events?room=general", server.url);
    let mut curl = Command::new("curl");
    curl.args(["-N", "-s", &url]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut curl = curl.spawn().expect("curl");
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let mut until = async |wanted: &str| {
        let reading = async { while !lines.next_line().await.unwrap().expect("a line").contains(wanted) {} };
        timeout(Duration::from_secs(PATIENCE_SECS), reading).await.unwrap_or_else(|_| panic!("no {wanted}"));
    };
    until("event: ready").await;
    for content in ["uno", "dos"] {
        server.say("general", content).await;
        until(content).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_cut_in_a_burst_goes_on_there_over_this_transport_and_the_other() {
    let server = TestServer::start_with(&["--log-entries-max", "100"]).await;
    let contents = numbers(0..500);
    let mut events = Events::follow(&server, "room=general", "").await;
    events.expect("ready").await;
    let began = Events::follow(&server, "room=general", "").await.expect("ready").await.id;
    let (seen, _) = tokio::join!(events.expect_contents(123), insert(&server, &contents));
    assert_eq!(seen.0, contents[..123]);
    drop(events);
    // The header is newer than the parameter, which is the one that the client began with.
    let mut back =
        Events::follow(&server, &format!("room=general&after={began}"), &format!("Last-Event-ID: {}\r\n", seen.1))
            .await;
    let (seen, last) = back.expect_contents(200).await;
    assert_eq!(seen, contents[123..323]);
    let mut socket = server.join(&format!("room=general&after={last}")).await;
    assert_eq!(socket.expect_contents(177).await, contents[323..]);
    server.stop().await;
}

#[tokio::test]
async fn a_last_event_id_is_a_place_nothing_or_a_reset_and_never_an_error() {
    let server = TestServer::start().await;
    let mut socket = server.follow("room=general").await;
    server.say("general", "seen").await;
    let cursor = socket.expect("created").await["cursor"].as_str().unwrap().to_owned();
    server.say("general", "missed").await;

    let mut back = Events::follow(&server, "room=general", &format!("Last-Event-ID: {cursor}\r\n")).await;
    assert_eq!(back.expect_contents(1).await.0, ["missed"], "a cursor of the WebSocket");
    let mut live = Events::follow(&server, "room=general", "Last-Event-ID:\r\n").await;
    live.expect("ready").await;
    let mut back = Events::follow(&server, &format!("room=general&after={cursor}"), "Last-Event-ID:\r\n").await;
    assert_eq!(back.expect_contents(1).await.0, ["missed"], "an empty header says nothing");
    for garbage in ["garbage", "%00", &"0".repeat(10_000), "\u{00ff}ñ"] {
        let mut events = Events::follow(&server, "room=general", &format!("Last-Event-ID: {garbage}\r\n")).await;
        let reset = events.expect("reset").await;
        assert!(!reset.data["reason"].as_str().unwrap().is_empty(), "{reset:?}");
        events.expect("ready").await;
    }
    let huge = Events::open(&server, "room=general", &format!("Last-Event-ID: {}\r\n", "0".repeat(1_000_000))).await;
    assert!(huge.head.starts_with("HTTP/1.1 431"), "{}", huge.head);
    for broken in ["a\rb", "a\r\n b\u{0}", "a\nb: c\u{0}"] {
        let refused = Events::open(&server, "room=general", &format!("Last-Event-ID: {broken}\r\n")).await;
        assert!(refused.head.starts_with("HTTP/1.1 400"), "{broken:?}: {}", refused.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_can_not_be_followed_is_a_problem_before_the_stream() {
    let server = TestServer::start_with(&["--topics-max", "2", "--allow-origin", "https://app.example"]).await;
    for path in ["/api/events", "/api/changes"] {
        for query in
            ["", "room=", "room=..&all=true", "all=perhaps", "room[$ne]=x", "room=a&room=b&inbox=c", "all=false"]
        {
            server.fetch(&format!("{path}?{query}")).await.expect_problem(422, "invalid-field");
        }
        let foreign = server.request(Method::GET, &format!("{path}?room=a")).header("Origin", "https://evil.example");
        Answer::to(foreign).await.expect_problem(403, "forbidden");
        let post = Answer::to(server.request(Method::POST, &format!("{path}?room=a"))).await;
        post.expect_problem(405, "method-not-allowed");
    }
    let allowed = Events::open(&server, "room=a", "Origin: https://app.example\r\n").await;
    assert!(allowed.head.contains("access-control-allow-origin: https://app.example"), "{}", allowed.head);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_closed_and_comes_back_to_its_place() {
    let server = TestServer::start_with(&["--silence-secs", "2"]).await;
    let mut stuck = Events::follow(&server, "room=general", "").await;
    stuck.expect("ready").await;
    let mut quick = server.follow("room=general").await;
    let contents: Vec<String> = (0..2_000).map(|n| format!("{n} {}", "x".repeat(3_900))).collect();
    for part in contents.chunks(200) {
        insert(&server, part).await;
        assert_eq!(quick.expect_contents(200).await, part);
    }
    let is_gone = async || (server.metric("corriente_connections{transport=\"sse\"}").await == 0).then_some(());
    eventually("the stuck stream is let go", is_gone).await;
    // What had been written is still there to be read, to the byte at which the connection ended.
    let mut last = String::new();
    let mut count = 0;
    while let Ok(Some(block)) = timeout(Duration::from_secs(PATIENCE_SECS), stuck.block()).await {
        if let Some(id) = block.lines().next().and_then(|line| line.strip_prefix("id: ")) {
            (last, count) = (id.to_owned(), count + 1);
        }
    }
    assert!(count < 2_000, "all of it went into buffers");
    let mut back = Events::follow(&server, "room=general", &format!("Last-Event-ID: {last}\r\n")).await;
    assert_eq!(back.expect_contents(2_000 - count).await.0, contents[count..]);
    server.stop().await;
}

#[tokio::test]
async fn an_idle_stream_shows_signs_of_life_and_ends_with_its_place_when_the_server_stops() {
    // A connection that shows none is closed after so long, so the stream hurries.
    let server = TestServer::start_with(&["--silence-secs", "2"]).await;
    let mut events = Events::follow(&server, "room=general", "").await;
    events.expect("ready").await;
    for _ in 0..3 {
        let sign = events.block().await.unwrap();
        assert!(sign == ":" || sign.contains("event: position"), "{sign}");
    }
    server.say("general", "hola").await;
    let created = events.expect("created").await;
    let mut busy = Events::follow(&server, "all=true", "").await;
    busy.expect("ready").await;
    // Kept: it goes with the last test that uses it.
    let (database, _mongo) = (server.database.name().to_owned(), server.mongo.clone());
    server.stop().await;
    let mut last = created.clone();
    // The chunked body has its end.
    while let Some(event) = events.next().await {
        last = event;
    }
    assert_eq!(last.kind, "position");
    busy.expect("position").await;
    assert!(last.id[..25] >= created.id[..25], "{} after {}", last.id, created.id);
    let server = TestServer::start_on(&database, &[]).await;
    server.say("general", "después").await;
    let mut back = Events::follow(&server, "room=general", &format!("Last-Event-ID: {}\r\n", last.id)).await;
    assert_eq!(back.expect_contents(1).await.0, ["después"]);
    server.stop().await;
}

/// Lets a program follow `general` over a network that breaks, while somebody writes, and returns what it has seen.
async fn program_over_a_bad_line(program: &str, language: &Language) {
    let server = TestServer::start().await;
    let (_, page) = server.get("/api/messages?room=general").await;
    let relay = Relay::to(&server.url, 1, 20_000).await;
    let url = format!("{}/api/events?room=general&after={}", relay.url, page["cursor"].as_str().unwrap());
    let contents = numbers(0..300);
    let writing = async {
        for part in contents.chunks(20) {
            insert(&server, part).await;
        }
        server.say("general", "end").await;
    };
    let args = [url.as_str()];
    let (printed, ()) = tokio::join!(language.run(program, &args), writing);
    let seen: Vec<String> = serde_json::from_str(&printed).expect("a list");
    assert_eq!(seen, contents);
    assert_eq!(relay.cut(), 1);
    server.stop().await;
}

#[tokio::test]
async fn eventsource_in_node_goes_on_where_its_connection_broke() {
    if let Some(node) = Language::node().await {
        program_over_a_bad_line("events.cjs", &node).await;
    }
}

#[tokio::test]
async fn httpx_sse_in_python_goes_on_where_its_connection_broke() {
    if let Some(python) = Language::python().await {
        program_over_a_bad_line("events.py", &python).await;
    }
}
