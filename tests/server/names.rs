//! Names by every way in: one name is one name whoever spells it, and what can be none is refused everywhere.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite;

use crate::{
    harness::{Answer, TestServer},
    input::expect_nothing_stored,
    socket_io::Client,
};

#[tokio::test]
async fn an_impossible_room_is_refused_by_every_way_in() {
    let server = TestServer::start().await;
    let follower = server.follow("all=true").await;
    let mut socket = server.follow("").await;
    let mut socket_io = Client::connect(&server, json!({})).await;
    let ws_url = server.url.replacen("http", "ws", 1);
    let long = "x".repeat(10 * 1024);
    for room in [
        " ",
        ".",
        "..",
        "../",
        "a/../b",
        "..\\",
        "\u{0}",
        "a\u{0}",
        "a\nb",
        "\u{202e}",
        "\u{2028}",
        "system.users",
        &long,
    ] {
        let answer = server.send(json!({ "sender": "Ana", "content": "x", "room": room })).await;
        assert_eq!(answer.expect_problem(422, "invalid-field")["errors"][0]["field"], "room", "{room:.20?}");

        let escaped = percent(room);
        let answer = server.fetch(&format!("/api/messages?room={escaped}")).await;
        assert_eq!(answer.expect_problem(422, "invalid-field")["errors"][0]["field"], "room", "{room:.20?}");
        let answer = server.fetch(&format!("/api/rooms?after={escaped}")).await;
        answer.expect_problem(422, "invalid-field");

        match tokio_tungstenite::connect_async(format!("{ws_url}/ws?room={escaped}")).await {
            Err(tungstenite::Error::Http(refusal)) => assert_eq!(refusal.status(), 422, "{room:.20?}"),
            other => panic!("{room:.20?}: {other:?}"),
        }
        for frame in [
            json!({ "type": "subscribe", "room": room }),
            json!({ "type": "send", "sender": "Ana", "content": "x", "room": room }),
        ] {
            socket.send(frame).await;
            assert_eq!(socket.expect("error").await["problem"]["status"], 422, "{room:.20?}");
        }

        for path in ["events", "changes", "presence"] {
            let answer = server.fetch(&format!("/api/{path}?room={escaped}")).await;
            assert_eq!(answer.expect_problem(422, "invalid-field")["errors"][0]["field"], "room", "{path} {room:.20?}");
        }
        for (event, argument) in [
            ("subscribe", json!({ "room": room })),
            ("message", json!({ "sender": "Ana", "content": "x", "room": room })),
        ] {
            let (answer, _) = socket_io.ask(event, argument).await;
            assert_eq!(answer["problem"]["status"], 422, "{event} {room:.20?}");
        }

        // In a path. An HTTP client resolves dots by itself, so what is sent is spelt out here.
        let page = raw(&server, &format!("GET /rooms/{escaped} HTTP/1.1")).await;
        assert!(page.starts_with("HTTP/1.1 404"), "{room:.20?} gave {page:.200}");
        let form = "sender=Ana&content=x";
        let head = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 20\r\n";
        let page = raw(&server, &format!("POST /rooms/{escaped} HTTP/1.1\r\n{head}\r\n{form}")).await;
        assert!(page.starts_with("HTTP/1.1 404"), "{room:.20?} gave {page:.200}");
    }
    expect_nothing_stored(server, follower).await;
}

#[tokio::test]
async fn nobody_passes_as_another_over_any_transport_by_what_is_not_seen() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=caf%C3%A9").await;
    let mut socket = server.follow("").await;
    let mut socket_io = Client::connect(&server, json!({})).await;
    let (room, name) = ("\u{a0}cafe\u{301}\u{200b}", "Jo\u{ad}s\u{200d}e\u{301}\u{2003}P\u{2060}.\u{3000}");
    let message = |content: &str| json!({ "sender": name, "room": room, "content": content });
    assert_eq!(server.send(message("REST")).await.status, 201);
    let mut frame = message("WebSocket");
    frame["type"] = "send".into();
    socket.send(frame).await;
    assert_eq!(socket_io.ask("message", message("Socket.IO")).await.0["message"]["sender"], "José P.");
    let form = server.request(Method::POST, "/rooms/caf%C3%A9").form(&[("sender", name), ("content", "form")]);
    assert_eq!(Answer::to(form).await.status, 303);
    let mut told = Vec::new();
    for _ in 0..4 {
        let message = follower.expect("created").await["message"].take();
        assert_eq!((&message["sender"], &message["room"]), (&json!("José P."), &json!("café")), "{message}");
        told.push(message["content"].as_str().unwrap().to_owned());
    }
    told.sort();
    assert_eq!(told, ["REST", "Socket.IO", "WebSocket", "form"]);

    // A spelling from which nearly without an end something is to be left out is none: of a name of 64 KB that took seconds.
    for joiners in [20, 8_000] {
        let tricky = format!("\u{5d0}{}\u{327}", "\u{200d}\u{1dc4}".repeat(joiners) + "\u{200d}");
        let refused = |answer: &Value| assert_eq!(answer["status"], 422, "{answer:.300}");
        let message = json!({ "sender": tricky, "content": "x" });
        refused(&server.send(message.clone()).await.expect_problem(422, "invalid-field"));
        let mut frame = message.clone();
        frame["type"] = "send".into();
        socket.send(frame).await;
        loop {
            let mut frame = socket.next().await.expect("it stays connected");
            match frame["type"].as_str() {
                Some("error") => break refused(&frame["problem"].take()),
                Some("sent" | "position") => {}
                _ => panic!("{frame:.300}"),
            }
        }
        refused(&socket_io.ask("message", message).await.0["problem"]);
    }
    server.stop().await;
}

/// One request that begins with exactly these lines, and the whole answer.
async fn raw(server: &TestServer, lines: &str) -> String {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let (line, rest) = lines.split_once("\r\n").unwrap_or((lines, "\r\n"));
    let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n{rest}");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
