//! Pages of other sites: they can not write here, nor read along, unless they are allowed to.

use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest},
};

use crate::harness::{Answer, TestServer};

const EVIL: &str = "https://evil.example";
const APP: &str = "https://app.example";

/// The status of a handshake with this `Origin`.
async fn handshake(server: &TestServer, origin: &str) -> u16 {
    let url = format!("{}/ws?room=general", server.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("Origin", origin.parse().unwrap());
    match connect_async(request).await {
        Ok((_, response)) => response.status().as_u16(),
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

async fn post(server: &TestServer, origin: &str) -> Answer {
    let message = json!({ "content": "hola", "sender": "Ana" });
    Answer::to(server.request(Method::POST, "/api/messages").header("Origin", origin).json(&message)).await
}

#[tokio::test]
async fn a_page_of_another_site_can_neither_write_nor_read_along() {
    let server = TestServer::start().await;
    for origin in [EVIL, "null", "http://127.0.0.1:1"] {
        let problem = post(&server, origin).await.expect_problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("--allow-origin"), "{problem}");
        assert_eq!(handshake(&server, origin).await, 403, "{origin}");
        let form = [("content", "hola"), ("sender", "Ana")];
        let form = server.request(Method::POST, "/rooms/general").header("Origin", origin).form(&form);
        assert_eq!(Answer::to(form).await.status, 403, "{origin}");
        // A link to here works, and its browser keeps the answer from the page that asked.
        let read = Answer::to(server.request(Method::GET, "/api/messages").header("Origin", origin)).await;
        assert_eq!((read.status.as_u16(), read.header("Access-Control-Allow-Origin")), (200, ""));
        let asked = server.request(Method::OPTIONS, "/api/messages").header("Origin", origin);
        assert_eq!(Answer::to(asked.header("Access-Control-Request-Method", "POST")).await.status, 403);
    }
    let form = server.request(Method::POST, "/rooms/general").header("Sec-Fetch-Site", "cross-site");
    assert_eq!(Answer::to(form.form(&[("content", "hola"), ("sender", "Ana")])).await.status, 403);
    let (_, page) = server.get("/api/messages").await;
    assert_eq!(page["messages"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_this_server_and_a_program_can() {
    let server = TestServer::start().await;
    assert_eq!(post(&server, &server.url).await.status, 201);
    assert_eq!(handshake(&server, &server.url).await, 101);
    server.say("general", "a program, which sends no origin").await;
    server.stop().await;
}

#[tokio::test]
async fn a_page_that_is_allowed_can_use_the_api_and_read_its_errors() {
    let server = TestServer::start_with(&["--allow-origin", "https://other.example,https://app.example"]).await;
    let asked = server.request(Method::OPTIONS, "/api/messages").header("Origin", APP);
    let allowed = Answer::to(asked.header("Access-Control-Request-Method", "POST")).await;
    assert_eq!((allowed.status.as_u16(), allowed.header("Access-Control-Allow-Origin")), (204, APP));
    assert!(allowed.header("Access-Control-Allow-Headers").contains("Content-Type"));
    let sent = post(&server, APP).await;
    assert_eq!((sent.status.as_u16(), sent.header("Access-Control-Allow-Origin")), (201, APP));
    let broken = server.request(Method::POST, "/api/messages").header("Origin", APP).json(&json!({}));
    let broken = Answer::to(broken).await;
    broken.expect_problem(422, "invalid-field");
    assert_eq!(broken.header("Access-Control-Allow-Origin"), APP);
    let missing = Answer::to(server.request(Method::GET, "/api/nothing").header("Origin", APP)).await;
    missing.expect_problem(404, "not-found");
    assert_eq!(missing.header("Access-Control-Allow-Origin"), APP);
    assert_eq!(handshake(&server, APP).await, 101);
    assert_eq!(handshake(&server, EVIL).await, 403);
    server.stop().await;
}

#[tokio::test]
async fn all_origins_can_be_allowed() {
    let server = TestServer::start_with(&["--allow-origin", "*"]).await;
    assert_eq!(post(&server, EVIL).await.status, 201);
    assert_eq!(handshake(&server, "null").await, 101);
    server.stop().await;
}
