//! Socket.IO, as its clients meet it: what they send, what they are told, and how their sessions begin, count and end.

mod following;
mod programs;
mod sending;
mod sessions;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use mongodb::bson::doc;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::harness::{Answer, PATIENCE_SECS, TestServer};

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

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

async fn insert(server: &TestServer, room: &str, contents: &[String]) {
    let documents = contents.iter().map(|content| doc! { "content": content, "sender": "Ana", "room": room });
    server.messages().insert_many(documents).await.unwrap();
}
