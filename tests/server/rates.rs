//! Clients that ask for too much: refused by every way in, with a word on when to come back, and nobody else notices.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use mongodb::bson::{doc, oid::ObjectId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use crate::{
    harness::{Answer, PATIENCE_SECS, TestServer, eventually},
    socket_io::{Client, frame, handshake, poll},
};

/// More than any limit of these tests lets through, however slow the machine is.
const ATTEMPTS_MAX: usize = 5_000;

/// Asks again and again until it is too much.
async fn until_too_much<T>(mut ask: impl AsyncFnMut(usize) -> Option<T>) -> T {
    for attempt in 0..ATTEMPTS_MAX {
        if let Some(refusal) = ask(attempt).await {
            return refusal;
        }
    }
    panic!("{ATTEMPTS_MAX} were not too much");
}

fn check_problem(problem: &Value) {
    assert_eq!(problem["status"], 429, "{problem}");
    assert_eq!(problem["type"], "/problems/too-many", "{problem}");
    assert!(problem["retry_after"].as_u64().is_some_and(|secs| secs > 0), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("try again in")), "{problem}");
}

fn check_retry_after(answer: &Answer) {
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|secs| secs > 0), "{:?}", answer.headers);
}

/// A handshake of a client that a proxy asks for.
async fn join_for(server: &TestServer, client: &str) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, u16> {
    let url = format!("{}/ws?room=general", server.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("X-Forwarded-For", client.parse().unwrap());
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_sender_who_writes_too_much_is_refused_by_every_way_in_and_others_are_not() {
    let server = TestServer::start_with(&["--rate-per-sender", "1"]).await;
    let answer = until_too_much(async |n| {
        let answer = server.send(json!({ "sender": "Ana", "content": n.to_string() })).await;
        (answer.status != 201).then_some(answer)
    })
    .await;
    check_problem(&answer.expect_problem(429, "too-many"));
    check_retry_after(&answer);
    assert_eq!(server.send(json!({ "sender": "Luis", "content": "hola" })).await.status, 201);

    let form = until_too_much(async |n| {
        let content = format!("kept {n}");
        let form = server.request(Method::POST, "/rooms/general").form(&[("sender", "Nora"), ("content", &content)]);
        let answer = Answer::to(form).await;
        (answer.status != 303).then_some((answer, content))
    });
    let (answer, content) = form.await;
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert!(answer.text.contains(&format!("{content}</textarea>")), "the text is given back");
    assert!(answer.text.contains("Too many messages at once"), "and it is said why");
    check_retry_after(&answer);

    let mut socket = server.follow("").await;
    let (id, error) = until_too_much(async |n| {
        let id = ObjectId::new().to_hex();
        socket.send(json!({ "type": "send", "id": id, "sender": "Iker", "content": n.to_string() })).await;
        let frame = socket.next().await.expect("the connection goes on");
        (frame["type"] != "sent").then_some((id, frame))
    })
    .await;
    assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!(id)), "{error}");
    check_problem(&error["problem"]);
    socket.send(json!({ "type": "send", "sender": "Luis", "content": "over the same connection" })).await;
    socket.expect("sent").await;

    let mut client = Client::connect(&server, json!({})).await;
    let answer = until_too_much(async |n| {
        let (answer, _) = client.ask("message", json!({ "sender": "Eva", "content": n.to_string() })).await;
        answer["message"].is_null().then_some(answer)
    })
    .await;
    check_problem(&answer["problem"]);
    assert_eq!(client.subscribe(json!({ "room": "dev" })).await["topic"], json!({ "room": "dev" }));
    assert!(server.metric(r#"corriente_refusals_total{reason="messages per sender"}"#).await >= 4);
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_refused_by_every_way_in_but_not_by_health_checks() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    let mut socket = server.follow("").await;
    let answer = until_too_much(async |_| {
        let answer = server.fetch("/api/rooms").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    check_problem(&answer.expect_problem(429, "too-many"));
    check_retry_after(&answer);
    let page = until_too_much(async |_| {
        let answer = Answer::to(server.request(Method::GET, "/rooms/general").header("Accept", "text/html")).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(page.status, 429);
    assert!(page.header("content-type").starts_with("text/html") && page.text.contains("<h1>"), "{}", page.text);
    check_retry_after(&page);
    let status = until_too_much(async |_| join_for(&server, "192.0.2.1").await.err()).await;
    assert_eq!(status, 429, "nobody believes who names another one");
    let error = until_too_much(async |_| {
        socket.send(json!({ "type": "subscribe", "room": "dev" })).await;
        let frame = socket.next().await.expect("the connection goes on");
        (frame["type"] == "error").then_some(frame)
    })
    .await;
    check_problem(&error["problem"]);
    for path in ["/livez", "/metrics", "/client.js"] {
        assert_eq!(server.fetch(path).await.status, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn who_floods_a_socket_and_takes_no_notice_is_closed_with_1008() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    let fragment = |data| Message::Frame(Frame::message("x", OpCode::Data(data), false));
    let floods = [
        (Message::text("garbage"), Message::text("garbage")),
        (Message::Ping("x".into()), Message::Ping("x".into())),
        (Message::Pong("x".into()), Message::Pong("x".into())),
        (fragment(Data::Text), fragment(Data::Continue)),
    ];
    // All before the first flood, which leaves nothing to their address.
    let mut flooders = Vec::new();
    for flood in floods {
        flooders.push((server.join("").await.socket, flood));
    }
    for (flooder, (first, frame)) in flooders {
        let closed = async {
            // It goes on while it is told to stop.
            let (mut sink, mut stream) = flooder.split();
            let flood = async {
                let _ = sink.send(first).await;
                for _ in 0..ATTEMPTS_MAX {
                    if sink.send(frame.clone()).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let listen = async {
                loop {
                    match stream.next().await {
                        Some(Ok(Message::Close(close))) => return close.map(|close| u16::from(close.code)),
                        Some(Ok(_)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            };
            tokio::select! {
                code = listen => code,
                () = flood => None,
            }
        };
        let code = timeout(Duration::from_secs(PATIENCE_SECS), closed).await.expect("the flood is ended");
        assert_eq!(code, Some(1008));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_proxy_that_is_trusted_says_who_asks_too_much() {
    async fn post(server: &TestServer, client: &str) -> u16 {
        let body = json!({ "sender": ObjectId::new().to_hex(), "content": "x" });
        let request = server.request(Method::POST, "/api/messages").header("X-Forwarded-For", client).json(&body);
        Answer::to(request).await.status.as_u16()
    }
    for (flags, is_believed) in
        [(&["--rate-per-address", "1"][..], false), (&["--rate-per-address", "1", "--trust-proxy"][..], true)]
    {
        let server = TestServer::start_with(flags).await;
        until_too_much(async |n| {
            (post(&server, &format!("10.9.9.{}, 203.0.113.1", n % 250)).await == 429).then_some(())
        })
        .await;
        // At once: a second brings one more to the whole address.
        let others = futures::future::join_all((2..22).map(|n| {
            let server = &server;
            async move { post(server, &format!("203.0.113.1, 203.0.113.{n}")).await }
        }));
        let served = others.await.into_iter().filter(|status| *status == 201).count();
        assert_eq!(served == 20, is_believed, "{served} others were served with {flags:?}");
        server.stop().await;
    }
}

#[tokio::test]
async fn connections_of_a_trusted_proxy_count_for_its_clients() {
    let server = TestServer::start_with(&["--connections-per-address-max", "2", "--trust-proxy", "127.0.0.0/8"]).await;
    let one = join_for(&server, "203.0.113.1").await.unwrap();
    let other = join_for(&server, "203.0.113.1").await.unwrap();
    assert_eq!(join_for(&server, "203.0.113.1").await.unwrap_err(), 503);
    assert_eq!(server.metric(r#"corriente_refusals_total{reason="connections"}"#).await, 1);
    let another = join_for(&server, "203.0.113.2").await.unwrap();
    drop(one);
    eventually("the place of the one that went", async || join_for(&server, "203.0.113.1").await.ok()).await;
    drop((other, another));
    server.stop().await;
}

#[tokio::test]
async fn what_only_begins_like_a_health_check_is_bound_like_everything_else() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    for path in ["/livezX", "/metrics/x", "/client.jsx", "/static/nothing.js"] {
        until_too_much(async |_| (server.fetch(path).await.status == 429).then_some(())).await;
    }
    for path in ["/livez", "/static/chat.js", "/static/chat.0123456789.js"] {
        assert_eq!(server.fetch(path).await.status, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn who_sends_over_socket_io_and_leaves_at_once_has_the_same_limits() {
    let server = TestServer::start_with(&["--rate-per-sender", "1"]).await;
    for _ in 0..5 {
        let mut client = Client::connect(&server, json!({})).await;
        for n in 0..40 {
            client.emit("message", json!({ "sender": "Ana", "content": n.to_string() })).await;
        }
    }
    // Those that left have been seen to the end when all of what they had sent was judged.
    eventually("200 judged", async || {
        let stored = server.messages().count_documents(doc! {}).await.unwrap();
        let refused = server.metric(r#"corriente_refusals_total{reason="messages per sender"}"#).await;
        (stored + refused >= 200).then_some(()).filter(|()| refused > 0)
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn who_floods_socket_io_with_events_that_nobody_knows_is_let_go() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    let mut client = Client::connect(&server, json!({})).await;
    for _ in 0..700 {
        client.emit("nothing", json!({})).await;
    }
    while let Some(packet) = client.packet().await.filter(|packet| packet != "41") {
        assert!(packet.starts_with("42"), "{packet}");
    }
    assert!(server.metric(r#"corriente_refusals_total{reason="requests per address"}"#).await > 400);
    server.stop().await;
}

#[tokio::test]
async fn who_floods_socket_io_with_pongs_or_acknowledgements_is_cut_also_after_an_upgrade() {
    for (packet, is_upgraded) in [("3", false), ("431[]", false), ("431[]", true)] {
        let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
        let mut url = format!("{}/socket.io/?EIO=4&transport=websocket", server.url.replacen("http", "ws", 1));
        let mut hello = vec!["40"];
        if is_upgraded {
            let opened = server.fetch("/socket.io/?EIO=4&transport=polling").await;
            url = format!("{url}&sid={}", opened.header("engine-io-sid"));
            hello = vec!["2probe", "5", "40"];
        }
        let (mut socket, _) = connect_async(url).await.unwrap();
        for packet in hello {
            socket.send(Message::text(packet)).await.unwrap();
        }
        eventually("it answers", async || {
            socket.next().await.unwrap().unwrap().to_text().unwrap().starts_with("40").then_some(())
        })
        .await;
        // Many frames at once, as long as it takes them.
        let flood = async {
            for _ in 0..ATTEMPTS_MAX {
                if socket.send(Message::text(packet)).await.is_err() {
                    return;
                }
            }
            panic!("{ATTEMPTS_MAX} times {packet} were not too much");
        };
        timeout(Duration::from_secs(PATIENCE_SECS), flood).await.expect("the flood is ended");
        server.stop().await;
    }
}

#[tokio::test]
async fn what_comes_together_with_an_upgrade_counts_too() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    let opened = server.fetch("/socket.io/?EIO=4&transport=polling").await;
    let path = format!("/socket.io/?EIO=4&transport=websocket&sid={}", opened.header("engine-io-sid"));
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let join = ["2probe", "5", "40"].map(frame).concat();
    // The header of a pong. For whoever has missed it, its 125 bytes begin with the header of a frame that never ends.
    socket.write_all(&[&handshake(&path)[..], &join, b"\x8A\xFD\0\0\0\0"].concat()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"}") {
        let reading = timeout(Duration::from_secs(PATIENCE_SECS), socket.read_buf(&mut said)).await;
        assert_ne!(reading.expect("an answer").unwrap(), 0, "{}", String::from_utf8_lossy(&said));
    }
    socket.write_all(&[b"\x82\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", &[b'x'; 115][..]].concat()).await.unwrap();
    let pongs = b"\x8A\x80\0\0\0\0".repeat(50);
    let flood = async {
        while socket.write_all(&pongs).await.is_ok() {
            // The server has its turn, too.
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(PATIENCE_SECS), flood).await.expect("the flood is ended");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_not_upgraded_goes_on_as_what_it_was() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    for version in [9, 4] {
        let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let refused = handshake(&format!("/socket.io/?EIO={version}&transport=websocket&sid=AAAAAAAAAAAAAAAA"));
        // As frames of a client these would be far too many.
        let body = b"\x8A\x80\0\0\0\0".repeat(2_000);
        let head = "POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length";
        let innocent = [format!("{head}: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        let last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut said = String::new();
        let talk = async {
            socket.write_all(&refused).await.unwrap();
            // One after the other: what the server does with the first one is over before it reads the next one.
            let mut first = [0; 12];
            socket.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 400", "version {version}");
            socket.write_all(&[&innocent[..], last].concat()).await.unwrap();
            socket.read_to_string(&mut said).await
        };
        timeout(Duration::from_secs(PATIENCE_SECS), talk).await.expect("answers").unwrap();
        assert!(said.contains("HTTP/1.1 400") || said.contains("HTTP/1.1 429"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
    server.stop().await;
}

#[tokio::test]
async fn each_packet_of_a_payload_counts() {
    let server = TestServer::start_with(&["--rate-requests-per-address", "1"]).await;
    let session = "/socket.io/?EIO=4&transport=polling";
    let opened = server.fetch(session).await;
    let sid = opened.header("engine-io-sid").to_owned();
    let post = server.request(Method::POST, &format!("{session}&sid={sid}")).body(["3"; 50].join("\x1e"));
    Answer::to(post).await.expect_problem(429, "too-many");
    server.stop().await;
}

#[tokio::test]
async fn sessions_that_poll_count_for_their_address_and_others_have_theirs() {
    let server = TestServer::start_with(&["--connections-per-address-max", "5"]).await;
    let begin = async || poll(|method, path| server.request(method, path)).await.status.as_u16();
    assert_eq!(begin().await, 200);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(begin().await);
    }
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    assert!(server.metric(r#"corriente_refusals_total{reason="connections"}"#).await >= 1);
    let other = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    assert_eq!(poll(|method, path| other.request(method, format!("{}{path}", server.url))).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn any_single_command_has_room_and_gives_it_back() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, json!({})).await;
    // Together they are more than may wait at once.
    for _ in 0..10 {
        let large = json!({ "sender": "Ana", "content": vec![0; 30_000] });
        let (answer, _) = client.ask("message", large).await;
        assert_eq!(answer["problem"]["status"], 422, "{answer}");
    }
    let (answer, _) = client.ask("message", json!({ "sender": "Ana", "content": "after them" })).await;
    assert_eq!(answer["message"]["content"], "after them", "{answer}");
    server.stop().await;
}
