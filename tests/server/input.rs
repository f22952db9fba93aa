//! What a hostile or clumsy client may send: each input has one outcome, and none of them is stored or is a 500.

use mongodb::bson::{doc, oid::ObjectId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Answer, TestServer};

const JSON: &str = "application/json";

async fn post(server: &TestServer, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    let mut request = server.request(Method::POST, "/api/messages").body(body.into());
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    Answer::to(request).await
}

/// Asserts that nothing that came before was stored or told to anybody.
pub async fn expect_nothing_stored(server: TestServer, mut follower: crate::harness::Follower) {
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 0);
    server.say("general", "the first one").await;
    follower.expect_next_content("the first one").await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_a_syntax_problem() {
    let server = TestServer::start().await;
    let follower = server.follow("all=true").await;
    let good = json!({ "sender": "Ana", "content": "x" }).to_string();
    let deep = |levels: usize| format!(r#"{{"sender":"Ana","content":"x","a":{}"#, "[".repeat(levels));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"5".to_vec(),
        b"\"x\"".to_vec(),
        format!("[{good}]").into_bytes(),
        good[..good.len() - 1].into(),
        format!("{good}{good}").into_bytes(),
        good.replace('"', "'").into_bytes(),
        br#"{"sender":"Ana","content":"\ud800"}"#.to_vec(),
        b"{\"sender\":\"Ana\",\"content\":\"\xff\xfe\"}".to_vec(),
        b"{\"sender\":\"Ana\",\"content\":\"a raw\nline\"}".to_vec(),
        good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        deep(200).into_bytes(),
        deep(60_000).into_bytes(),
        b"sender=Ana&content=x".to_vec(),
    ];
    for body in bodies {
        let answer = post(&server, JSON, body.clone()).await;
        let shown = String::from_utf8_lossy(&body).chars().take(60).collect::<String>();
        assert_eq!(answer.status, 400, "{shown} gave {}", answer.text);
        answer.expect_problem(400, "syntax");
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", "nonsense"]
    {
        let answer = post(&server, kind, good.clone()).await;
        assert_eq!(answer.status, 415, "{kind} gave {}", answer.text);
        answer.expect_problem(415, "media-type");
    }
    expect_nothing_stored(server, follower).await;
}

#[tokio::test]
async fn a_field_that_breaks_a_rule_is_named_in_the_problem() {
    let server = TestServer::start().await;
    let follower = server.follow("all=true").await;
    let long_name = "n".repeat(65);
    let operator = json!({ "$gt": "" });
    let table: Vec<(&str, Value)> = vec![
        ("content", Value::Null),
        ("content", "".into()),
        ("content", " \t\r\n\u{a0}\u{2003}".into()),
        ("content", "a\u{0}b".into()),
        ("content", "x".repeat(4_001).into()),
        ("content", "ñ".repeat(4_001).into()),
        ("content", 5.into()),
        ("content", true.into()),
        ("content", json!(["x"])),
        ("content", operator.clone()),
        ("sender", Value::Null),
        ("sender", "".into()),
        ("sender", "  ".into()),
        ("sender", "a\nb".into()),
        ("sender", "a\u{0}".into()),
        ("sender", "a\u{202e}b".into()),
        ("sender", "a\u{2066}b".into()),
        ("sender", "a\u{2028}b".into()),
        ("sender", long_name.clone().into()),
        ("sender", operator.clone()),
        ("recipient", " ".into()),
        ("recipient", "a\u{7f}b".into()),
        ("recipient", long_name.clone().into()),
        ("recipient", json!(["Ana", "Luis"])),
        ("recipient", operator.clone()),
        ("room", 1.into()),
        ("room", long_name.into()),
        ("room", operator),
        ("id", "".into()),
        ("id", "7".into()),
        ("id", "65a1b2c3d4e5f60718293a4".into()),
        ("id", "65a1b2c3d4e5f60718293a4g".into()),
        ("id", " 65a1b2c3d4e5f60718293a4b".into()),
        ("id", "-s61".into()),
        ("id", json!({ "$oid": "65a1b2c3d4e5f60718293a4b" })),
        // Fields that are not part of a message that is sent.
        ("_id", "65a1b2c3d4e5f60718293a4b".into()),
        ("date", "2026-01-01T00:00:00Z".into()),
        ("__proto__", json!({})),
        ("__v", 0.into()),
        ("$where", "sleep(1000)".into()),
        ("$set", json!({ "content": "y" })),
        ("content.x", "x".into()),
        ("Content", "x".into()),
        ("", "x".into()),
    ];
    for (field, value) in table {
        let mut body = json!({ "sender": "Ana", "content": "x" });
        body[field] = value;
        let answer = server.send(body.clone()).await;
        assert_eq!(answer.status, 422, "{body:.80} gave {}", answer.text);
        let problem = answer.expect_problem(422, "invalid-field");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{body:.80} gave {problem}");
        assert_eq!(errors[0]["field"], field, "{body:.80} gave {problem}");
        assert!(errors[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        assert!(answer.text.len() < 1_000, "an answer does not repeat a large input: {}", answer.text);
    }
    // Every field at fault at once, so that a form can be mended in one go.
    let all = server.send(json!({ "id": "x", "content": " ", "recipient": "\u{1}" })).await;
    let problem = all.expect_problem(422, "invalid-field");
    let fields: Vec<&str> = problem["errors"].as_array().unwrap().iter().flat_map(|e| e["field"].as_str()).collect();
    assert_eq!(fields, ["id", "content", "sender", "recipient"]);
    let all = server.send(json!({ "sender": "", "content": "", "foo": 1 })).await;
    let detail = all.expect_problem(422, "invalid-field")["detail"].as_str().unwrap().to_owned();
    for part in ["foo is not a field", "sender must not be empty", "content must not be empty"] {
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
    // Some of thousands, over any transport: no answer is many times as long as what it answers.
    let thousands: serde_json::Map<String, Value> = (0..6_000).map(|n| (n.to_string(), 0.into())).collect();
    let answer = server.send(Value::Object(thousands.clone())).await;
    let problem = answer.expect_problem(422, "invalid-field");
    assert!(problem["detail"].as_str().unwrap().ends_with("and 5982 more"), "{:.3000}", answer.text);
    let mut socket = server.follow("").await;
    let mut frame = json!({ "type": "send" });
    frame.as_object_mut().unwrap().extend(thousands);
    socket.send(frame).await;
    let refused = socket.expect("error").await.to_string();
    let rooms = server.fetch(&format!("/api/events?{}", "room=&".repeat(6_000))).await;
    rooms.expect_problem(422, "invalid-field");
    for text in [&answer.text, &refused, &rooms.text] {
        assert!(text.len() < 8_000, "{} bytes", text.len());
    }
    expect_nothing_stored(server, follower).await;
}

#[tokio::test]
async fn a_parameter_that_breaks_a_rule_is_named_in_the_problem() {
    let server = TestServer::start().await;
    server.say("general", "not to be shown by a mistake").await;
    let long = "0".repeat(5_000);
    for (path, query, field) in [
        ("messages", "limit=0", "limit"),
        ("messages", "limit=-1", "limit"),
        ("messages", "limit=abc", "limit"),
        ("messages", "limit=", "limit"),
        ("messages", "limit=1e9", "limit"),
        ("messages", "limit=1000000000", "limit"),
        ("messages", "limit=99999999999999999999", "limit"),
        ("messages", "limit=1.5", "limit"),
        ("messages", "limit=201", "limit"),
        ("messages", "before=", "before"),
        ("messages", "before=garbage", "before"),
        ("messages", "before=%00", "before"),
        ("messages", "before=0000000000000000-", "before"),
        ("messages", "before=0000000000000000-0300000000", "before"),
        ("messages", "before=65a1b2c3d4e5f60718293a4b", "before"),
        ("messages", &format!("before={long}"), "before"),
        ("messages", "since=garbage", "since"),
        ("messages", "room=", "room"),
        ("messages", "inbox=", "inbox"),
        ("messages", "inbox=%20", "inbox"),
        ("messages", "inbox=Ana&with=", "with"),
        ("messages", "with=Ana", "with"),
        ("messages", "room=a&inbox=b", "inbox"),
        ("messages", "room=a&with=b", "with"),
        // No operator reaches the database, and a misspelt name must not read as "everything".
        ("messages", "room[$ne]=", "room[$ne]"),
        ("messages", "room[$ne]=x", "room[$ne]"),
        ("messages", "room%5B%24gt%5D=", "room[$gt]"),
        ("messages", "rooom=general", "rooom"),
        ("messages", "$where=sleep(1000)", "$where"),
        ("messages", "room=a&room=b", "room"),
        ("rooms", "limit=0", "limit"),
        ("rooms", "limit=1000000000", "limit"),
        ("rooms", "limit=101", "limit"),
        ("rooms", "limit=abc", "limit"),
        ("rooms", "limit=%2B5", "limit"),
        ("rooms", "after=", "after"),
        ("rooms", "after=./", "after"),
        ("rooms", "after=./ff", "after"),
        ("rooms", "after[$gt]=", "after[$gt]"),
    ] {
        let answer = server.fetch(&format!("/api/{path}?{query}")).await;
        assert_eq!(answer.status, 422, "{path}?{query:.60} gave {}", answer.text);
        let problem = answer.expect_problem(422, "invalid-field");
        assert_eq!(problem["errors"][0]["field"], field, "{path}?{query:.60} gave {problem}");
        assert!(!answer.text.contains("by a mistake"), "{path}?{query:.60}");
        if field == "limit" {
            let entries_max = if path == "messages" { 200 } else { 100 };
            let detail = format!("must be a whole number from 1 to {entries_max}");
            assert_eq!(problem["errors"][0]["detail"], detail, "{path}?{query}");
        }
    }
    // The widest that is allowed.
    for query in
        ["limit=1", "limit=200", "room=general&limit=%32", "before=7fffffffffffffff", "before=8000000000000000"]
    {
        assert_eq!(server.fetch(&format!("/api/messages?{query}")).await.status, 200, "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_id_that_no_message_has_is_not_found() {
    let server = TestServer::start().await;
    server.say("general", "another one").await;
    let long = "0".repeat(5_000);
    for id in
        [&ObjectId::new().to_hex(), "x", "%00", "-s", "-sff", "-n0000000000000000000", "$ne", "zb7", "-d03", &long]
    {
        let answer = server.fetch(&format!("/api/messages/{id}")).await;
        assert_eq!(answer.status, 404, "{id:.40} gave {}", answer.text);
        answer.expect_problem(404, "not-found");
    }
    server.stop().await;
}

#[tokio::test]
async fn unknown_urls_and_wrong_methods_are_problems() {
    let server = TestServer::start().await;
    for path in [
        "/nowhere",
        "/api",
        "/api/",
        "/api/nowhere",
        "/api/messages/a/b",
        "/api/rooms/dev",
        "/rooms",
        "/rooms/a/b",
        "/openapi.xml",
        "/.env",
        "/static/nothing.js",
        "/%00",
    ] {
        let answer = server.fetch(path).await;
        assert_eq!(answer.status, 404, "{path} gave {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path} gave {:?}", answer.text);
        answer.expect_problem(404, "not-found");
    }
    for (method, path) in [
        (Method::PUT, "/api/messages"),
        (Method::DELETE, "/api/messages"),
        (Method::PATCH, "/api/messages/65a1b2c3d4e5f60718293a4b"),
        (Method::DELETE, "/api/messages/65a1b2c3d4e5f60718293a4b"),
        (Method::POST, "/api/rooms"),
        (Method::POST, "/livez"),
        (Method::POST, "/ws"),
        (Method::DELETE, "/rooms/general"),
        (Method::POST, "/openapi.json"),
    ] {
        let answer = Answer::to(server.request(method.clone(), path)).await;
        assert_eq!(answer.status, 405, "{method} {path} gave {}", answer.text);
        answer.expect_problem(405, "method-not-allowed");
        let is_written_to = ["/api/messages", "/rooms/general"].contains(&path);
        assert_eq!(answer.header("allow"), if is_written_to { "GET, HEAD, POST" } else { "GET, HEAD" }, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_however_it_is_sent() {
    let server = TestServer::start().await;
    let follower = server.follow("all=true").await;
    let of_bytes = |bytes: usize| {
        let empty = json!({ "sender": "Ana", "content": " ", "unknown": "" }).to_string();
        empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
    };
    post(&server, JSON, of_bytes(64 * 1024)).await.expect_problem(422, "invalid-field");
    post(&server, JSON, of_bytes(64 * 1024 + 1)).await.expect_problem(413, "too-large");
    post(&server, JSON, of_bytes(65 * 1024)).await.expect_problem(413, "too-large");
    post(&server, JSON, "[".repeat(100_000)).await.expect_problem(413, "too-large");

    // Without a length that is known before: refused when the bound is met, however much would still come.
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = "POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..17 {
        socket.write_all(chunk.as_bytes()).await.unwrap();
    }
    // No final chunk: the answer must come without it.
    let answer = until_head_end(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");

    // A body within the bound may come in chunks.
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>("{\"sender\":"), Ok("\"Ana\"}")]);
    let request = server.request(Method::POST, "/api/messages").header("content-type", JSON);
    Answer::to(request.body(reqwest::Body::wrap_stream(chunks))).await.expect_problem(422, "invalid-field");
    expect_nothing_stored(server, follower).await;
}

#[tokio::test]
async fn what_was_written_comes_back_unchanged_by_every_way_out() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    let mut writer = server.follow("").await;
    let texts = [
        "x".repeat(4_000),
        "ñ".repeat(4_000),
        "😀".repeat(4_000),
        "\u{1}".repeat(4_000),
        "👩🏽‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈".into(),
        "שלום \u{202b}עולם\u{202c} مرحبا".into(),
        "line\u{2028}separator\u{2029}and\r\nlines\n\ttabs".into(),
        "</script><script>alert(1)</script><!-- & &amp; \" ' ` \\ \\u0041".into(),
        " blanks around ".into(),
        "Jose\u{301} is not José".into(),
        "\u{feff}\u{fffd}\u{ffff}\u{10ffff}\u{7f}\u{1b}[31m".into(),
        "{\"$gt\": \"\"} $where __proto__ {{7*7}} ${7*7}".into(),
        "'; DROP TABLE messages; --".into(),
    ];
    for text in texts {
        let id = ObjectId::new().to_hex();
        let sent = server.send(json!({ "sender": "Ana", "content": text, "id": id })).await;
        assert_eq!(sent.status, 201, "{text:.60?}: {}", sent.text);
        writer.send(json!({ "type": "send", "sender": "Ana", "content": text })).await;
        assert_eq!(sent.json()["content"], text);
        for _ in 0..2 {
            assert_eq!(follower.expect("created").await["message"]["content"], text);
        }
        let read = server.fetch("/api/messages?room=general&limit=2").await.json();
        for message in read["messages"].as_array().unwrap() {
            assert_eq!(message["content"], text);
        }
        let newest = server.fetch("/api/rooms").await.json();
        assert_eq!(newest["rooms"][0]["newest"]["content"], text);
        let stored =
            server.messages().find_one(doc! { "_id": ObjectId::parse_str(&id).unwrap() }).await.unwrap().unwrap();
        assert_eq!(stored.get_str("content").unwrap(), text);
    }
    let page = server.fetch("/rooms/general").await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("<script>alert(1)"), "the page runs what people write");
    server.stop().await;
}

/// What comes up to the end of the head of an answer.
async fn until_head_end(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "closed without an answer");
        }
    };
    let patience = std::time::Duration::from_secs(crate::harness::PATIENCE_SECS);
    tokio::time::timeout(patience, reading).await.expect("an answer within the deadline");
    String::from_utf8_lossy(&answer).into_owned()
}
