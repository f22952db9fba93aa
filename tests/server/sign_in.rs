//! A proxy in front signs people in, and says in a header who they are. Here the tests are the proxy: 127.0.0.1 is trusted,
//! and 127.0.0.2 is somebody on the same network.

use futures::StreamExt;
use mongodb::bson::doc;
use reqwest::{Method, RequestBuilder, header::HeaderValue};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, tungstenite::client::IntoClientRequest};

use crate::{
    harness::{Answer, Follower, TestServer},
    socket_io::Client,
};

const SETTINGS: [&str; 4] = ["--trust-proxy", "127.0.0.1", "--sender-header", "X-User"];
const PROXY: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 2];
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// A request that the proxy passes on, with what it says of who is signed in.
fn signed(server: &TestServer, method: Method, path: &str, name: &str) -> RequestBuilder {
    server.request(method, path).header("X-User", HeaderValue::from_bytes(name.as_bytes()).unwrap())
}

fn stranger(server: &TestServer, method: Method, path: &str) -> RequestBuilder {
    let http = reqwest::Client::builder().local_address(std::net::IpAddr::from(STRANGER)).build().unwrap();
    http.request(method, format!("{}{path}", server.url)).header("X-User", "Ana")
}

/// A WebSocket from this address, with this name in the header.
async fn websocket(
    server: &TestServer,
    path: &str,
    from: [u8; 4],
    name: Option<&str>,
) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let mut request = format!("{}{path}", server.url.replacen("http", "ws", 1)).into_client_request().unwrap();
    if let Some(name) = name {
        request.headers_mut().insert("X-User", HeaderValue::from_bytes(name.as_bytes()).unwrap());
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let stream = socket.connect(server.url.trim_start_matches("http://").parse().unwrap()).await.unwrap();
    client_async(request, MaybeTlsStream::Plain(stream)).await.expect("the handshake succeeds").0
}

async fn socket_io(server: &TestServer, from: [u8; 4], name: Option<&str>) -> Client {
    let socket = websocket(server, "/socket.io/?EIO=4&transport=websocket", from, name).await;
    Client::over(socket, json!({})).await
}

/// Sends one message over a session of Socket.IO that polls, and returns the acknowledgement.
async fn send_by_polling(server: &TestServer, name: Option<&str>, message: &Value) -> Value {
    let request = |method, path: &str| match name {
        Some(name) => signed(server, method, path, name),
        None => server.request(method, path),
    };
    let opened = Answer::to(request(Method::GET, POLLING)).await;
    let path = format!("{POLLING}&sid={}", opened.header("engine-io-sid"));
    let mut answer = String::new();
    for packet in ["40".to_owned(), format!("420{}", json!(["message", message]))] {
        assert_eq!(Answer::to(request(Method::POST, &path).body(packet)).await.status, 200);
        answer = Answer::to(request(Method::GET, &path)).await.text;
    }
    let [answer]: [Value; 1] = serde_json::from_str(answer.strip_prefix("430").expect("an acknowledgement")).unwrap();
    answer
}

#[tokio::test]
async fn over_every_transport_the_sender_is_who_the_proxy_has_signed_in_whatever_is_claimed() {
    let server = TestServer::start_with(&SETTINGS).await;
    let claimed = json!({ "sender": "Luis", "content": "hola" });
    let unnamed = json!({ "content": "hola" });

    for body in [&claimed, &unnamed] {
        let answer = Answer::to(signed(&server, Method::POST, "/api/messages", "José").json(body)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["sender"]), (201, &json!("José")), "{}", answer.text);
    }
    let keyed = async |name| {
        let request =
            signed(&server, Method::POST, "/api/messages", name).header("Idempotency-Key", "1").json(&unnamed);
        Answer::to(request).await
    };
    assert_eq!([keyed("José").await.status, keyed("José").await.status], [201, 200], "a retry");
    assert_eq!(keyed("Eva").await.json()["sender"], "Eva", "whose key is another one");

    let form = signed(&server, Method::POST, "/rooms/form", "José").form(&[("content", "hola"), ("sender", "Luis")]);
    assert_eq!(Answer::to(form).await.status, 303);
    let (_, page) = server.get("/api/messages?room=form").await;
    assert_eq!(page["messages"][0]["sender"], "José");

    let socket = websocket(&server, "/ws?room=general", PROXY, Some("José")).await;
    let mut follower = Follower { socket };
    follower.expect("ready").await;
    let mut frame = claimed.clone();
    frame["type"] = json!("send");
    follower.send(frame).await;
    loop {
        let frame = follower.next().await.expect("the socket stays open");
        if frame["type"] == "created" {
            assert_eq!(frame["message"]["sender"], "José");
            break;
        }
    }

    let mut client = socket_io(&server, PROXY, Some("José")).await;
    assert_eq!(client.ask("message", claimed.clone()).await.0["message"]["sender"], "José");
    assert_eq!(send_by_polling(&server, Some("José"), &claimed).await["message"]["sender"], "José");

    assert_eq!(server.messages().count_documents(doc! { "sender": "Luis" }).await.unwrap(), 0);
    server.stop().await;
}

#[tokio::test]
async fn who_is_not_signed_in_reads_everything_and_is_told_why_nothing_can_be_written() {
    let server = TestServer::start_with(&SETTINGS).await;
    server.messages().insert_one(doc! { "content": "from elsewhere", "sender": "Ana" }).await.unwrap();
    let message = json!({ "sender": "Ana", "content": "hola" });

    let refused = server.send(message.clone()).await;
    let problem = refused.expect_problem(401, "not-signed-in");
    assert!(problem["detail"].as_str().unwrap().contains("not signed in"), "{problem}");
    assert!(refused.header("www-authenticate").starts_with("Proxy "), "{:?}", refused.headers);
    let page = Answer::to(server.request(Method::GET, "/problems/not-signed-in").header("Accept-Language", "es")).await;
    assert!(page.text.contains("No se sabe quién eres"), "{}", page.text);

    let mut follower = server.follow("room=general").await;
    let id = "6745b2c3d4e5f60718293a4b";
    follower.send(json!({ "type": "send", "id": id, "sender": "Ana", "content": "hola" })).await;
    let error = follower.expect("error").await;
    assert_eq!((&error["problem"]["status"], &error["id"]), (&json!(401), &json!(id)));

    let mut client = socket_io(&server, PROXY, None).await;
    assert_eq!(client.ask("message", message.clone()).await.0["problem"]["status"], 401);
    assert_eq!(send_by_polling(&server, None, &message).await["problem"]["status"], 401);
    assert!(client.subscribe(json!({ "room": "general" })).await["topic"].is_object(), "it can read");

    for place in ["/rooms/general", "/inbox/Ana"] {
        let form = [("content", "¿Se pierde?"), ("sender", "Ana"), ("recipient", "Luis")];
        let answer = Answer::to(server.request(Method::POST, place).form(&form)).await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").starts_with("Proxy "));
        assert!(answer.text.contains("not signed in") && answer.text.contains("¿Se pierde?"), "{}", answer.text);
    }
    let (_, page) = server.get("/api/messages").await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 1, "{page}");
    server.stop().await;
}

#[tokio::test]
async fn nobody_but_the_proxy_is_believed_and_it_must_name_one_person() {
    let server = TestServer::start_with(&SETTINGS).await;
    let message = json!({ "sender": "Ana", "content": "hola" });
    Answer::to(stranger(&server, Method::POST, "/api/messages").json(&message))
        .await
        .expect_problem(401, "not-signed-in");
    let page = Answer::to(stranger(&server, Method::GET, "/rooms/general")).await;
    assert!(page.status == 200 && !page.text.contains("<textarea"), "{}", page.text);
    let form = stranger(&server, Method::POST, "/rooms/general").form(&[("content", "hola"), ("sender", "Ana")]);
    assert_eq!(Answer::to(form).await.status, 401);
    let mut follower = Follower { socket: websocket(&server, "/ws?room=general", STRANGER, Some("Ana")).await };
    follower.expect("ready").await;
    follower.send(json!({ "type": "send", "sender": "Ana", "content": "hola" })).await;
    assert_eq!(follower.expect("error").await["problem"]["status"], 401);
    let mut client = socket_io(&server, STRANGER, Some("Ana")).await;
    assert_eq!(client.ask("message", message.clone()).await.0["problem"]["status"], 401);

    for (names, why) in [
        (&["Ana", "Luis"][..], "more than one"),
        (&["Ana", "Ana"], "more than one"),
        (&["\u{202E}anA"], "U+202E"),
        (&[&"x".repeat(65)], "65 characters"),
        // Neither is another account.
        (&["A\u{200B}na"], "nothing invisible"),
        (&["Ana\u{A0}"], "nothing invisible"),
        (&["\u{200B}"], "nothing invisible"),
    ] {
        let mut request = server.request(Method::POST, "/api/messages").json(&message);
        for name in names {
            request = request.header("X-User", HeaderValue::from_bytes(name.as_bytes()).unwrap());
        }
        let problem = Answer::to(request).await.expect_problem(401, "not-signed-in");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{names:?}: {problem}");
    }
    // What one encoding has for `é` is `Ã©` in the other one.
    let latin = HeaderValue::from_bytes(b"Jos\xE9").unwrap();
    let request = server.request(Method::POST, "/api/messages").json(&message).header("X-User", latin);
    let problem = Answer::to(request).await.expect_problem(401, "not-signed-in");
    assert!(problem["detail"].as_str().unwrap().contains("UTF-8"), "{problem}");
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_session_of_socket_io_is_of_who_began_it() {
    let server = TestServer::start_with(&SETTINGS).await;
    let opened = Answer::to(signed(&server, Method::GET, POLLING, "José")).await;
    let path = format!("{POLLING}&sid={}", opened.header("engine-io-sid"));
    for request in [signed(&server, Method::POST, &path, "Eva"), server.request(Method::POST, &path)] {
        Answer::to(request.body("40")).await.expect_problem(403, "forbidden");
    }
    assert_eq!(Answer::to(signed(&server, Method::POST, &path, "José").body("40")).await.status, 200);
    // Also of one that began over a WebSocket.
    let mut socket = websocket(&server, "/socket.io/?EIO=4&transport=websocket", PROXY, Some("José")).await;
    let hello = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let hello: Value = serde_json::from_str(hello.strip_prefix('0').expect("a session")).unwrap();
    for transport in ["polling", "websocket"] {
        let path = format!("/socket.io/?EIO=4&transport={transport}&sid={}", hello["sid"].as_str().unwrap());
        for method in [Method::GET, Method::POST] {
            Answer::to(signed(&server, method, &path, "Eva").body("40")).await.expect_problem(403, "forbidden");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn without_the_setting_the_header_says_nothing() {
    let server = TestServer::start_with(&["--trust-proxy", "127.0.0.1"]).await;
    let message = json!({ "sender": "Luis", "content": "hola" });
    let answer = Answer::to(signed(&server, Method::POST, "/api/messages", "Ana").json(&message)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["sender"]), (201, &json!("Luis")));
    server.stop().await;
}

#[tokio::test]
async fn a_page_shows_the_name_and_does_not_ask_for_it_in_both_languages() {
    let server = TestServer::start_with(&SETTINGS).await;
    let page = async |path: &str, name: &str, language: &str| {
        let request = signed(&server, Method::GET, path, name).header("Accept-Language", language);
        // Somebody else wrote in this browser before.
        Answer::to(request.header("Cookie", "corriente-name=Luis")).await.text
    };
    for language in ["en", "es"] {
        for path in ["/rooms/general", "/inbox/José"] {
            let page = page(path, "José", language).await;
            assert!(page.contains(r#"name="sender" value="José" readonly"#), "{path}: {page}");
            assert!(page.contains(r#"href="/inbox/Jos%C3%A9""#) && !page.contains("/inbox/Luis"), "{path}: {page}");
        }
        // Somebody else's inbox is for writing to them.
        let page = page("/inbox/Eva", "José", language).await;
        assert!(page.contains(r#"name="recipient" value="Eva""#), "{page}");
        assert!(page.contains(r#"name="sender" value="José" readonly"#), "{page}");
    }
    let form = signed(&server, Method::POST, "/inbox/Eva", "José").form(&[("content", "hola"), ("recipient", "Eva")]);
    assert_eq!(Answer::to(form).await.header("location"), "/inbox/Jos%C3%A9?to=Eva", "where the message is");

    for (language, words) in [("en", "You are not signed in"), ("es", "No has iniciado sesión")] {
        let request = server.request(Method::GET, "/rooms/general").header("Accept-Language", language);
        let page = Answer::to(request).await.text;
        assert!(page.contains(words) && !page.contains("<textarea"), "{page}");
    }
    server.stop().await;
}
