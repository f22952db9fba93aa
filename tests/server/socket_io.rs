//! Following topics and sending over Socket.IO.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use mongodb::bson::{doc, oid::ObjectId};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{
    harness::{Answer, FreshDatabase, PATIENCE_SECS, TestServer, eventually},
    programs::Language,
    relay::Relay,
};

/// A client that speaks the protocol itself, over a WebSocket.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    acks: u64,
}

impl Client {
    pub async fn connect(server: &TestServer, auth: Value) -> Self {
        let url = format!("{}/socket.io/?EIO=4&transport=websocket", server.url.replacen("http", "ws", 1));
        let (socket, _) = connect_async(url).await.expect("the handshake succeeds");
        Self::over(socket, auth).await
    }

    /// Begins with polling, and goes over to a WebSocket.
    pub async fn upgrade(server: &TestServer) -> Self {
        let opened = server.fetch("/socket.io/?EIO=4&transport=polling").await;
        let address = server.url.replacen("http", "ws", 1);
        let sid = opened.header("engine-io-sid");
        let (socket, _) = connect_async(format!("{address}/socket.io/?EIO=4&transport=websocket&sid={sid}"))
            .await
            .expect("a handshake");
        let mut client = Self { socket, acks: 0 };
        for packet in ["2probe", "5", "40"] {
            client.send(packet).await;
        }
        assert_eq!(client.packet().await.as_deref(), Some("3probe"));
        assert!(client.packet().await.unwrap().starts_with("40{"), "a Socket.IO handshake");
        client
    }

    /// Over a WebSocket that has just been opened.
    pub async fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, auth: Value) -> Self {
        let mut client = Self { socket, acks: 0 };
        assert!(client.packet().await.unwrap().starts_with("0{"), "an Engine.IO handshake");
        client.send(&format!("40{auth}")).await;
        assert!(client.packet().await.unwrap().starts_with("40{"), "a Socket.IO handshake");
        client
    }

    /// Sends whatever this is. `None` when the connection is closed.
    pub async fn make(mut self, noise: Message) -> Option<Self> {
        self.socket.send(noise).await.ok().map(|()| self)
    }

    async fn send(&mut self, packet: &str) {
        self.socket.send(Message::text(packet)).await.unwrap();
    }

    /// The next packet; pings are answered. `None` when the connection is closed.
    pub async fn packet(&mut self) -> Option<String> {
        let reading = async {
            loop {
                match self.socket.next().await? {
                    Ok(Message::Text(text)) if text.as_str() == "2" => self.send("3").await,
                    Ok(Message::Text(text)) => return Some(text.to_string()),
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        timeout(Duration::from_secs(PATIENCE_SECS), reading).await.expect("a packet within the deadline")
    }

    /// The next event: its name and its argument.
    async fn event(&mut self) -> (String, Value) {
        let packet = self.packet().await.expect("the connection stays open");
        let event = packet.strip_prefix("42").unwrap_or_else(|| panic!("{packet} is no event"));
        serde_json::from_str(event).expect("a name and one argument")
    }

    async fn expect(&mut self, name: &str) -> Value {
        loop {
            let (came, frame) = self.event().await;
            assert_eq!(frame["type"], came, "the frame of the WebSocket: {frame}");
            if came == "position" && name != "position" {
                continue;
            }
            assert_eq!(came, name, "{frame}");
            return frame;
        }
    }

    async fn expect_contents(&mut self, count: usize) -> Vec<String> {
        let mut contents = Vec::new();
        while contents.len() < count {
            let (name, frame) = self.event().await;
            match name.as_str() {
                "created" => contents.push(frame["message"]["content"].as_str().unwrap().to_owned()),
                "ready" | "position" => {}
                _ => panic!("{frame} instead of a created message"),
            }
        }
        contents
    }

    /// Emits an event, and waits for no acknowledgement.
    pub async fn emit(&mut self, name: &str, argument: Value) {
        self.send(&format!("42{}", json!([name, argument]))).await;
    }

    /// Emits an event, and returns the acknowledgement and the events that came before it.
    pub async fn ask(&mut self, name: &str, argument: Value) -> (Value, Vec<(String, Value)>) {
        self.acks += 1;
        let ack = format!("43{}", self.acks);
        self.send(&format!("42{}{}", self.acks, json!([name, argument]))).await;
        let mut before = Vec::new();
        loop {
            let packet = self.packet().await.expect("the connection stays open");
            if let Some(answer) = packet.strip_prefix(&ack) {
                let [answer]: [Value; 1] = serde_json::from_str(answer).expect("one argument");
                return (answer, before);
            }
            before.push(serde_json::from_str(packet.strip_prefix("42").expect("an event")).unwrap());
        }
    }

    pub async fn subscribe(&mut self, argument: Value) -> Value {
        self.ask("subscribe", argument).await.0
    }
}

/// Begins a session that polls, and joins it: one that is not joined ends after ten seconds. `request` makes those to the
/// server. Returns how the session was opened.
pub async fn poll(request: impl Fn(Method, &str) -> RequestBuilder) -> Answer {
    let open = "/socket.io/?EIO=4&transport=polling";
    let opened = Answer::to(request(Method::GET, open)).await;
    if opened.status == 200 {
        let path = format!("{open}&sid={}", opened.header("engine-io-sid"));
        let joined = Answer::to(request(Method::POST, &path).body("40")).await;
        assert_eq!(joined.status, 200, "{}", joined.text);
    }
    opened
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

async fn insert(server: &TestServer, room: &str, contents: &[String]) {
    let documents = contents.iter().map(|content| doc! { "content": content, "sender": "Ana", "room": room });
    server.messages().insert_many(documents).await.unwrap();
}

#[tokio::test]
async fn what_a_socket_sends_is_acknowledged_stored_and_told_to_every_transport() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, json!({})).await;
    let subscribed = client.subscribe(json!({ "room": " dev " })).await;
    assert_eq!(subscribed["topic"], json!({ "room": "dev" }));
    assert!(subscribed["cursor"].is_string(), "{subscribed}");
    client.expect("ready").await;
    let mut follower = server.follow("room=dev").await;
    let id = ObjectId::new().to_hex();
    let message = json!({ "id": id, "room": "dev", "sender": "Ana", "content": "hola" });
    let (answer, before) = client.ask("message", message.clone()).await;
    assert_eq!((&answer["message"]["id"], &answer["message"]["content"]), (&json!(id), &json!("hola")), "{answer}");
    // Its own message comes before the acknowledgement or after it.
    let created = match before.into_iter().find(|(name, _)| name == "created") {
        Some((_, frame)) => frame,
        None => client.expect("created").await,
    };
    assert_eq!(created, follower.expect("created").await);
    assert_eq!(created["message"], answer["message"]);
    // A retry is one message still; other words are a conflict.
    assert_eq!(client.ask("message", message).await.0["message"]["id"], id);
    let other = json!({ "id": id, "room": "dev", "sender": "Ana", "content": "other words" });
    assert_eq!(client.ask("message", other).await.0["problem"]["status"], 409);
    server.messages().update_one(doc! {}, doc! { "$set": { "content": "edited" } }).await.unwrap();
    server.messages().delete_one(doc! {}).await.unwrap();
    assert_eq!(client.expect("updated").await, follower.expect("updated").await);
    assert_eq!(client.expect("deleted").await, follower.expect("deleted").await);
    assert_eq!(server.metric("corriente_inserts_total{source=\"socket.io\",outcome=\"created\"}").await, 1);

    // Direct messages, everything, and no longer the room.
    client.subscribe(json!({ "inbox": "Luis" })).await;
    assert_eq!(client.ask("unsubscribe", json!({ "room": "dev" })).await.0["topic"], json!({ "room": "dev" }));
    server.say("dev", "not followed any longer").await;
    server.post(json!({ "sender": "Ana", "recipient": "Luis", "content": "psst" })).await;
    assert_eq!(client.expect("created").await["message"]["recipient"], "Luis");
    assert_eq!(client.subscribe(json!({ "all": true })).await["topic"], json!({ "all": true }));
    server.stop().await;
}

#[tokio::test]
async fn messages_of_one_socket_keep_their_order_also_when_it_leaves_at_once() {
    let server = TestServer::start().await;
    let mut reader = server.follow("room=general").await;
    let mut client = Client::connect(&server, json!({})).await;
    for n in 0..50 {
        client.send(&format!("42{}", json!(["message", { "sender": "Ana", "content": n.to_string() }]))).await;
    }
    client.socket.close(None).await.unwrap();
    assert_eq!(reader.expect_contents(50).await, numbers(0..50));
    server.stop().await;
}

#[tokio::test]
async fn commands_that_are_none_are_answered_with_a_problem_and_the_socket_lives_on() {
    let server = TestServer::start_with(&["--topics-max", "2"]).await;
    let mut client = Client::connect(&server, json!({ "after": 7 })).await;
    let table = [
        ("subscribe", json!("general"), 400),
        ("subscribe", json!({}), 422),
        ("subscribe", json!({ "room": "" }), 422),
        ("subscribe", json!({ "room": "a", "inbox": "b" }), 422),
        ("subscribe", json!({ "room": { "$gt": "" } }), 422),
        ("subscribe", json!({ "room": "a", "after": 7 }), 422),
        ("unsubscribe", json!({ "all": "yes" }), 422),
        ("message", json!(null), 400),
        ("message", json!({ "sender": "Ana", "content": " " }), 422),
        ("message", json!({ "sender": "Ana", "content": "x", "room": { "$gt": "" } }), 422),
        ("message", json!({ "sender": "Ana", "content": "x", "__proto__": 1 }), 422),
    ];
    for (name, argument, status) in table {
        let (answer, _) = client.ask(name, argument.clone()).await;
        assert_eq!(answer["problem"]["status"], status, "{name} {argument}: {answer}");
    }
    for (room, problem) in [("a", json!(null)), ("b", json!(null)), ("c", json!(422))] {
        let answer = client.subscribe(json!({ "room": room })).await;
        assert_eq!(answer["problem"]["status"], problem, "{room}: {answer}");
    }
    // Without an acknowledgement to put it into, a problem is an event.
    client.send(&format!("42{}", json!(["message", { "sender": "", "content": "x", "id": "7" }]))).await;
    let error = client.expect("error").await;
    assert_eq!((&error["id"], &error["problem"]["status"]), (&json!("7"), &json!(422)), "{error}");
    server.say("a", "still here").await;
    assert_eq!(client.expect("created").await["message"]["content"], "still here");
    server.stop().await;
}

#[tokio::test]
async fn a_place_that_is_none_is_one_reset_however_many_topics_follow() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, json!({ "after": "garbage" })).await;
    client.subscribe(json!({ "room": "a" })).await;
    client.expect("reset").await;
    client.expect("ready").await;
    for room in ["b", "c"] {
        let (_, before) = client.ask("subscribe", json!({ "room": room })).await;
        assert!(before.is_empty(), "{before:?}");
        server.say(room, "live").await;
        assert_eq!(client.expect("created").await["message"]["room"], room);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_comes_back_gets_exactly_what_it_missed_in_all_of_its_topics() {
    let server = TestServer::start_with(&["--log-entries-max", "100"]).await;
    let mut follower = server.follow("room=a&room=b").await;
    server.say("a", "seen").await;
    let left_at = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    for n in 0..150 {
        insert(&server, if n % 2 == 0 { "a" } else { "b" }, &[n.to_string()]).await;
    }
    let mut back = Client::connect(&server, json!({ "after": left_at })).await;
    // As a page does it: both at once, when it is connected.
    back.send(r#"42["subscribe",{"room":"a"}]"#).await;
    back.send(r#"42["subscribe",{"room":"b"}]"#).await;
    assert_eq!(back.expect_contents(150).await, numbers(0..150));
    back.expect("ready").await;

    // A topic that comes later, with a place of its own, brings the others along: repeated, and in one order.
    let mut late = Client::connect(&server, json!({ "after": left_at })).await;
    late.subscribe(json!({ "room": "a" })).await;
    let evens: Vec<String> = (0..150).step_by(2).map(|n| n.to_string()).collect();
    assert_eq!(late.expect_contents(75).await, evens);
    late.subscribe(json!({ "room": "b" })).await;
    assert_eq!(late.expect_contents(150).await, numbers(0..150));
    // One that needs no past begins now.
    let mut live = Client::connect(&server, json!({})).await;
    live.subscribe(json!({ "room": "a", "after": "" })).await;
    live.expect("ready").await;
    // And a place that is none is a reset.
    live.subscribe(json!({ "room": "b", "after": "garbage" })).await;
    assert!(live.expect("reset").await["reason"].is_string());
    live.expect("ready").await;
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_stops_reading_gets_everything_when_it_reads_again() {
    let server = TestServer::start().await;
    let mut slow = Client::connect(&server, json!({})).await;
    slow.subscribe(json!({ "room": "general" })).await;
    slow.expect("ready").await;
    let mut quick = server.follow("room=general").await;
    let contents: Vec<String> = (0..2_000).map(|n| format!("{n} {}", "x".repeat(3_900))).collect();
    for part in contents.chunks(200) {
        insert(&server, "general", part).await;
        assert_eq!(quick.expect_contents(200).await, part);
    }
    assert_eq!(slow.expect_contents(2_000).await, contents);
    server.stop().await;
}

/// How long a client that is stuck may be kept, in seconds: a ping comes within a second here, and may take 20.
const STUCK_SECS_MAX: u64 = 60;

#[tokio::test]
async fn a_socket_that_never_reads_is_closed_and_comes_back_to_its_place() {
    let server = TestServer::start_with(&["--silence-secs", "2"]).await;
    let mut stuck = Client::connect(&server, json!({})).await;
    stuck.subscribe(json!({ "room": "general" })).await;
    let mut last = stuck.expect("ready").await["cursor"].as_str().unwrap().to_owned();
    let mut quick = server.follow("room=general").await;
    let contents: Vec<String> = (0..2_000).map(|n| format!("{n} {}", "x".repeat(3_900))).collect();
    for part in contents.chunks(200) {
        insert(&server, "general", part).await;
        assert_eq!(quick.expect_contents(200).await, part);
    }
    let is_let_go = async {
        while server.metric("corriente_connections{transport=\"socket.io\"}").await > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(STUCK_SECS_MAX), is_let_go).await.expect("the stuck socket is let go");
    // What had been written is still there to be read, to the byte at which the connection ended.
    let mut count = 0;
    let reading = async {
        while let Some(Ok(packet)) = stuck.socket.next().await {
            let Some(event) = packet.to_text().ok().and_then(|packet| packet.strip_prefix("42")) else { continue };
            let [name, frame]: [Value; 2] = serde_json::from_str(event).expect("a name and one argument");
            count += usize::from(name == "created");
            last = frame["cursor"].as_str().expect("a cursor").to_owned();
        }
    };
    timeout(Duration::from_secs(PATIENCE_SECS), reading).await.expect("the connection has ended");
    assert!(count < 2_000, "all of it went into buffers");
    let mut back = Client::connect(&server, json!({ "after": last })).await;
    back.subscribe(json!({ "room": "general" })).await;
    assert_eq!(back.expect_contents(2_000 - count).await, contents[count..]);
    server.stop().await;
}

#[tokio::test]
async fn what_one_socket_sends_at_once_leaves_in_few_batches_and_in_order() {
    const MESSAGES: usize = 60;
    let server = TestServer::start().await;
    let mut reader = server.follow("room=general").await;
    let mut client = Client::connect(&server, json!({})).await;
    for n in 0..MESSAGES {
        let message = json!({ "sender": "Ana", "content": n.to_string() });
        client.send(&format!("42{n}{}", json!(["message", message]))).await;
    }
    assert_eq!(reader.expect_contents(MESSAGES).await, numbers(0..MESSAGES));
    // Each is acknowledged, in the order in which they were sent.
    for n in 0..MESSAGES {
        let answer = client.packet().await.unwrap();
        assert!(answer.starts_with(&format!("43{n}[")) && answer.contains("\"message\""), "{answer}");
    }
    let batches = server.metric("corriente_insert_batch_size_count").await;
    assert!(batches < MESSAGES as u64, "each message left alone");
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_tells_the_place_and_closes_below_so_that_clients_come_back() {
    for is_upgraded in [false, true] {
        let server = TestServer::start().await;
        let mut client = match is_upgraded {
            false => Client::connect(&server, json!({})).await,
            true => Client::upgrade(&server).await,
        };
        client.subscribe(json!({ "room": "general" })).await;
        client.expect("ready").await;
        let stopped = timeout(Duration::from_secs(PATIENCE_SECS), server.stop()).await;
        stopped.expect("it waits for no client to leave by itself");
        client.expect("position").await;
        // `41` would tell official clients to stay away; this closes what is below, and they come back.
        let closed = client.socket.next().await.expect("an end that is said").unwrap();
        assert!(matches!(&closed, Message::Close(Some(close)) if u16::from(close.code) == 1012), "{closed:?}");
    }
}

#[tokio::test]
async fn sessions_end_one_after_the_other_when_the_server_stops() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    // Over two seconds, then. Few of them ask, so that a slow machine has time for all.
    for _ in 0..400 {
        clients.push(Client::connect(&server, json!({})).await);
    }
    let is_one_gone = AtomicBool::new(false);
    let asking = clients.iter_mut().take(20).map(async |client| {
        let mut answers = 0;
        // Until it is closed.
        while client.socket.send(Message::text(r#"421["unsubscribe",{"room":"general"}]"#)).await.is_ok() {
            let Some(packet) = client.packet().await else { break };
            answers += usize::from(packet.starts_with("431") && is_one_gone.load(Ordering::Relaxed));
            sleep(Duration::from_millis(20)).await;
        }
        is_one_gone.store(true, Ordering::Relaxed);
        answers
    });
    let (answers, ()) = tokio::join!(futures::future::join_all(asking), server.stop());
    // The first one may have been on its way.
    assert!(answers.iter().any(|count| *count > 1), "when one was gone, nobody was served any more: {answers:?}");
}

#[tokio::test]
async fn sessions_are_counted_and_bounded_and_pages_of_other_sites_have_none() {
    let server = TestServer::start_with(&["--connections-max", "8"]).await;
    let open = "/socket.io/?EIO=4&transport=polling";
    for query in
        ["", "EIO=4", "EIO=3&transport=polling", "EIO=4&transport=carrier-pigeon", "EIO=4&transport=polling&sid=x"]
    {
        assert_eq!(server.fetch(&format!("/socket.io/?{query}")).await.status, 400, "{query}");
    }
    // Of one address alone a session and its connection count: there is no room for eight.
    let elsewhere = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let mut sids = Vec::new();
    for n in 0..8 {
        let answer = match n {
            ..4 => poll(|method, path| server.request(method, path)).await,
            _ => poll(|method, path| elsewhere.request(method, format!("{}{path}", server.url))).await,
        };
        assert_eq!(answer.status, 200, "{}", answer.text);
        let open: Value = serde_json::from_str(answer.text.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        sids.push(open["sid"].as_str().unwrap().to_owned());
    }
    server.fetch(open).await.expect_problem(503, "unavailable");
    assert_eq!(server.metric("corriente_connections{transport=\"socket.io\"}").await, 8);
    let path = format!("{open}&sid={}", sids[0]);
    let left = Answer::to(server.request(Method::POST, &path).body("1")).await;
    assert_eq!(left.status, 200, "{}", left.text);
    eventually("its place is free", async || (server.fetch(open).await.status == 200).then_some(())).await;

    let path = format!("{open}&sid={}", sids[1]);
    let huge = Answer::to(server.request(Method::POST, &path).body("4".repeat(200_000))).await;
    huge.expect_problem(413, "too-large");
    let broken = Answer::to(server.request(Method::POST, &path).body(&b"4\xFF"[..])).await;
    broken.expect_problem(400, "syntax");
    for method in [Method::GET, Method::POST] {
        let foreign = server.request(method, open).header("Origin", "https://evil.example");
        Answer::to(foreign).await.expect_problem(403, "forbidden");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_address_can_not_take_the_places_of_all_with_sockets_that_it_closes_at_once() {
    const PLACES: usize = 12;
    let places = PLACES.to_string();
    let server = TestServer::start_with(&["--connections-max", &places, "--connections-per-address-max", "4"]).await;
    let url = format!("{}/socket.io/?EIO=4&transport=websocket", server.url.replacen("http", "ws", 1));
    let mut begun = 0;
    // The server keeps a session that nobody has joined for a while.
    for _ in 0..100 {
        match connect_async(&url).await {
            Ok(_) => begun += 1,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
        if begun == PLACES {
            break;
        }
    }
    let elsewhere = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let opened = poll(|method, path| elsewhere.request(method, format!("{}{path}", server.url))).await;
    assert_eq!(opened.status, 200, "after {begun} sockets of the other address: {}", opened.text);
    server.stop().await;
}

/// A frame of a client, with a mask of zeros.
pub fn frame(packet: &str) -> Vec<u8> {
    [&[0x81, 0x80 | packet.len() as u8, 0, 0, 0, 0], packet.as_bytes()].concat()
}

/// What a client sends who asks for a WebSocket.
pub fn handshake(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

// The library joins sockets and hears them on other threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_goes_with_its_socket_also_when_that_leaves_while_it_joins() {
    const CLIENTS: usize = 8;
    let server = TestServer::start().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let clients = (0..CLIENTS).map(|client| {
        let address = address.clone();
        tokio::spawn(async move {
            for round in 0..200 {
                let mut socket = TcpStream::connect(&address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                socket.write_all(&handshake("/socket.io/?EIO=4&transport=websocket")).await.unwrap();
                let mut said = Vec::new();
                while !said.ends_with(b"}") {
                    assert_ne!(socket.read_buf(&mut said).await.unwrap(), 0, "the connection ends early");
                }
                let between = frame("3").repeat((round + client) % 60);
                let packets = [frame("40"), between, frame("41")].concat();
                socket.write_all(&packets).await.unwrap();
                // Until the server has heard it all.
                let _ = socket.shutdown().await;
                let _ = socket.read_to_end(&mut said).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    eventually("no session is left", async || {
        (server.metric("corriente_connections{transport=\"socket.io\"}").await == 0).then_some(())
    })
    .await;
    server.stop().await;
}

/// Lets a program follow `general` over a network that breaks, while somebody writes: nothing is lost or repeated.
async fn program_over_a_bad_line(program: &str, language: &Language, transports: Option<&str>) {
    const CUTS: usize = 2;
    let server = TestServer::start().await;
    let (_, page) = server.get("/api/messages?room=general").await;
    // With polling, a connection carries one answer only.
    let after_bytes = if transports == Some("polling") { 2_000 } else { 20_000 };
    let relay = Relay::to(&server.url, CUTS, after_bytes).await;
    let contents = numbers(0..400);
    let writing = async {
        for part in contents.chunks(20) {
            insert(&server, "general", part).await;
        }
        server.say("general", "end").await;
    };
    let cursor = page["cursor"].as_str().unwrap();
    let args: Vec<&str> = [Some(relay.url.as_str()), transports, Some(cursor)].into_iter().flatten().collect();
    let (printed, ()) = tokio::join!(language.run(program, &args), writing);
    let seen: Vec<String> = serde_json::from_str(&printed).expect("a list");
    assert_eq!(seen, contents);
    assert_eq!(relay.cut(), CUTS, "{transports:?}");
    server.stop().await;
}

#[tokio::test]
async fn the_official_client_goes_on_where_its_connection_broke_over_each_transport() {
    if let Some(node) = Language::node().await {
        for transports in ["websocket", "polling", "polling,websocket"] {
            program_over_a_bad_line("chat.cjs", &node, Some(transports)).await;
        }
    }
}

#[tokio::test]
async fn python_socketio_goes_on_where_its_connection_broke() {
    if let Some(python) = Language::python().await {
        program_over_a_bad_line("chat.py", &python, None).await;
    }
}

#[tokio::test]
async fn the_page_about_migrating_is_code_that_runs() {
    let Some(node) = Language::node().await else {
        return;
    };
    // A collection that Mongoose made, with a message in it.
    let fresh = FreshDatabase::with_collection().await;
    let old = doc! { "content": "before", "sender": "Nora", "date": mongodb::bson::DateTime::now(), "__v": 0 };
    fresh.collection("messages").insert_one(old).await.unwrap();
    let server = TestServer::start_on(fresh.name(), &["--pre-images"]).await;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migrating-from-socket-io.md");
    let printed = node.run("migrated.cjs", &[page, &server.url, fresh.uri(), fresh.name()]).await;
    let story: Value = serde_json::from_str(&printed).expect("a story");
    let mut seen: Vec<&str> = story["seen"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    // The complaint comes before the first message or after it.
    let complaint = seen.iter().position(|line| line.starts_with("! content")).expect("a complaint");
    seen.remove(complaint);
    let written = ["from the old server", "from the old server, edited", "soon gone", "- soon gone"];
    assert_eq!(seen, ["before", "from the page"].into_iter().chain(written).collect::<Vec<_>>());
    assert_eq!(story["shown"], json!(["before", "from the page", "from the old server, edited"]));
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_for_reading_only_acknowledges_with_the_problem() {
    let fresh = FreshDatabase::with_collection().await;
    let server = TestServer::start_on(fresh.name(), &["--read-only"]).await;
    let mut client = Client::connect(&server, json!({})).await;
    client.subscribe(json!({ "room": "general" })).await;
    let (answer, _) = client.ask("message", json!({ "sender": "Ana", "content": "hola" })).await;
    assert_eq!(answer["problem"]["status"], 403, "{answer}");
    insert(&server, "general", &numbers(0..1)).await;
    assert_eq!(client.expect_contents(1).await, ["0"]);
    server.stop().await;
}
