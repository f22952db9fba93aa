//! Clients that are slow, stuck, silent, too many or hostile below HTTP: each is let go in time, and others are served.

use std::time::Duration;

use corriente::{
    listener::{DoorLimits, FrontDoor, SenderHeader},
    problem::Problem,
    sessions::{Incoming, Outgoing, Socket, accept},
    telemetry::Metrics,
};
use futures::{SinkExt, StreamExt};
use poem::{EndpointExt, Response, Route, get, handler};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Follower, PATIENCE_SECS, TestServer, eventually},
    socket_io::poll,
};

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap()
}

/// What the server says until it closes the connection.
async fn until_closed(socket: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(PATIENCE_SECS), socket.read_to_end(&mut said)).await;
    // A reset is an end, too.
    let _ = closed.expect("the server closes the connection");
    String::from_utf8_lossy(&said).into_owned()
}

/// Sends bytes as they are, and returns all that comes back.
async fn answer_to(server: &TestServer, bytes: &[u8]) -> String {
    let mut socket = connect(server).await;
    // The server may have answered and closed before it has read all of it.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    until_closed(&mut socket).await
}

#[tokio::test]
async fn a_client_that_says_nothing_or_drips_its_headers_is_let_go() {
    let server = TestServer::start_with(&["--header-secs", "1"]).await;
    let mut silent = connect(&server).await;
    let mut slow = connect(&server).await;
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let drip = async {
        // A byte now and then, for ever: that bytes move is not enough.
        for byte in b"GET / HTTP/1.1\r\nX-Long: ".iter().chain(std::iter::repeat(&b'a')) {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let ends = async {
        tokio::join!(
            until_closed(&mut silent),
            until_closed(&mut idle),
            timeout(Duration::from_secs(PATIENCE_SECS), drip)
        )
    };
    let (said, answered, dripped) = ends.await;
    assert_eq!(said, "");
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert!(dripped.is_ok(), "the slow one is still connected");
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let server = TestServer::start_with(&["--body-secs", "1"]).await;
    let mut socket = connect(&server).await;
    let head =
        "POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("/problems/timeout"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    let flags = ["--silence-secs", "1", "--connections-per-address-max", "1"];
    let server = TestServer::start_with(&flags).await;
    let mut stuck = connect(&server).await;
    // Far more answers than the buffers between the two hold.
    let request = b"GET /docs/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40);
    stuck.write_all(&request).await.unwrap();
    eventually("the place of the stuck client is free", async || {
        let answer = answer_to(&server, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_places_come_back() {
    for (flag, bound) in [("--connections-max", "3"), ("--connections-per-address-max", "3")] {
        let server = TestServer::start_with(&[flag, bound]).await;
        let mut followers = Vec::new();
        for _ in 0..3 {
            followers.push(server.follow("room=general").await);
        }
        let mut refused = connect(&server).await;
        let answer = until_closed(&mut refused).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 5"), "{flag}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let problem: serde_json::Value = serde_json::from_str(body).expect("the whole problem");
        assert_eq!(problem["status"], 503);
        // A WebSocket counts until it is closed.
        followers.pop();
        eventually("a place", async || {
            let answer = answer_to(&server, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
        server.say("general", "still here").await;
        for follower in &mut followers {
            assert_eq!(follower.expect_contents(1).await, ["still here"]);
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn requests_that_two_servers_could_read_in_two_ways_are_refused() {
    let server = TestServer::start().await;
    let body = r#"{"content":"smuggled","sender":"Ana"}"#;
    let length = body.len();
    let post = "POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for (what, request) in [
        ("two lengths", format!("{post}Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{body}")),
        ("a length that is no number", format!("{post}Content-Length: +{length}\r\n\r\n{body}")),
        ("an encoding that is not chunked last", format!("{post}Transfer-Encoding: chunked, x\r\n\r\n{body}")),
        ("a space before the colon", format!("{post}Content-Length : {length}\r\n\r\n{body}")),
        ("a bare line feed in a value", format!("{post}X: a\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{body}")),
        ("a null byte", format!("{post}X: a\0b\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "a chunk size that is no number",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{body}\r\n0\r\n\r\n"),
        ),
    ] {
        let answer = answer_to(&server, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{what}: {answer}");
    }
    // Chunked wins over a length, as RFC 9112 has it, and the connection is not used again: what a proxy may take for a
    // second request is none.
    let hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let both = format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}");
    let answer = answer_to(&server, both.as_bytes()).await;
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    let (_, page) = server.get("/api/messages").await;
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(0), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_headers_is_a_431() {
    let server = TestServer::start().await;
    let many: String = (0..10_000).map(|n| format!("X-{n}: a\r\n")).collect();
    for headers in [format!("X-Long: {}\r\n", "a".repeat(100_000)), many] {
        let answer = answer_to(&server, format!("GET /livez HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).await;
        // The answer may be lost to the reset that follows, as the rest of the headers was not read.
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer:.100}");
    }
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn sessions_have_a_bound_over_all_transports_also_when_they_share_a_connection() {
    let server = TestServer::start_with(&["--connections-max", "5"]).await;
    // Of one address alone its connections count besides, and there would be no room for five.
    let elsewhere = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    for n in 0..5 {
        // Over two connections: with polling, a session is none.
        let begun = match n {
            ..2 => poll(|method, path| server.request(method, path)).await,
            _ => poll(|method, path| elsewhere.request(method, format!("{}{path}", server.url))).await,
        };
        assert_eq!(begun.status, 200, "{}", begun.text);
    }
    for path in ["/api/events?room=a", "/api/changes?room=a&after=x&wait=10", "/socket.io/?EIO=4&transport=polling"] {
        let refused = server.fetch(path).await;
        refused.expect_problem(503, "unavailable");
        assert!(!refused.header("retry-after").is_empty(), "{path}");
    }
    let socket = format!("{}/ws?room=a", server.url.replacen("http", "ws", 1));
    assert!(tokio_tungstenite::connect_async(socket).await.is_err());
    // Everything else is served.
    assert_eq!(server.fetch("/api/messages").await.status, 200);
    server.stop().await;
}

#[handler]
fn broken() -> Response {
    panic!("a handler that is broken, on purpose");
}

/// Sends back what it gets, but for one thing.
#[handler]
fn echo_or_break(request: &poem::Request) -> Result<Response, Problem> {
    let (upgrade, answer) = accept(request)?;
    tokio::spawn(async move {
        let stream = upgrade.stream(Duration::from_secs(PATIENCE_SECS)).await.expect("the connection");
        let mut socket = Socket::new(stream);
        while let Ok(Incoming::Text(text)) = socket.read().await {
            assert_ne!(text, "break", "a session that is broken, on purpose");
            let echo = Outgoing::Text(text.as_bytes()).encode();
            socket.write(echo, Duration::from_secs(PATIENCE_SECS)).await.expect("the client reads");
        }
    });
    Ok(answer)
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_and_no_other_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let limits = DoorLimits {
        connections_max: 3,
        connections_per_address_max: 3,
        header_time_max: Duration::from_secs(PATIENCE_SECS),
        silence_max: Duration::from_secs(PATIENCE_SECS),
        sender_header: SenderHeader::default(),
        trusted_proxies: [].into(),
        bodies_bytes_max: 1_000_000,
        answers_bytes_max: 1_000_000,
    };
    // Without what answers a panic in a handler with a 500: this is about what is below.
    let routes = Route::new().at("/broken", get(broken)).at("/ws", get(echo_or_break)).map_to_response();
    let door = FrontDoor::new(listener, limits, &Metrics::default());
    let (stop, patience) = (CancellationToken::new(), Duration::from_secs(1));
    let serving = tokio::spawn(door.serve(routes, stop.clone(), patience));

    let mut whole = Follower::join(&url, "").await;
    for _ in 0..5 {
        // There are three places, so each of the broken ones gives its own back.
        let mut other = eventually("a place", async || {
            let ws = format!("{}/ws", url.replacen("http", "ws", 1));
            tokio_tungstenite::connect_async(ws).await.ok()
        })
        .await
        .0;
        other.send(Message::text("break")).await.unwrap();
        let end = timeout(Duration::from_secs(PATIENCE_SECS), other.next()).await.expect("the connection ends");
        assert!(matches!(end, None | Some(Err(_))), "{end:?}");
        let mut socket = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        socket.write_all(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(until_closed(&mut socket).await, "");
        whole.send_text("7").await;
        assert_eq!(whole.next().await, Some(7.into()), "who was here before is still served");
    }
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_server_listens_on_a_name_of_this_machine() {
    let server = TestServer::start_with(&["--host", "localhost"]).await;
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop().await;
}
