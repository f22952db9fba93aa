//! The specification of the realtime side: valid, whole, and true.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::TestServer,
    openapi::{check, collect_references},
    programs::Language,
};

async fn document(server: &TestServer) -> Value {
    let yaml = server.fetch("/asyncapi.yaml").await;
    assert_eq!(yaml.status, 200);
    assert_eq!(yaml.header("content-type"), "application/yaml");
    serde_yaml::from_str(&yaml.text).expect("YAML")
}

#[tokio::test]
async fn the_official_parser_finds_nothing_wrong_with_the_document() {
    let Some(node) = Language::specifications().await else {
        return;
    };
    let server = TestServer::start().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("asyncapi.yaml");
    fs::write(&file, server.fetch("/asyncapi.yaml").await.text).unwrap();
    let printed = node.run("asyncapi.cjs", &[file.to_str().unwrap()]).await;
    let found: Value = serde_json::from_str(&printed).expect("what it found");
    let diagnostics = found["diagnostics"].as_array().unwrap().iter();
    // That there is a newer version of AsyncAPI, which fewer tools can read, is no fault.
    let faults: Vec<&Value> = diagnostics.filter(|found| found["code"] != "asyncapi-latest-version").collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let channels: BTreeSet<&str> = found["channels"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(channels, ["/api/events", "/socket.io/", "/ws"].into());
    server.stop().await;
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_example_fits_its_schema() {
    let server = TestServer::start().await;
    let document = document(&server).await;
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    assert!(!document.to_string().contains("nullable"), "a word of OpenAPI, which JSON Schema does not know");
    assert_eq!(document["components"]["schemas"]["NewMessage"]["properties"]["id"]["type"], json!(["string", "null"]));
    let kinds = |channel: &str| -> BTreeSet<&str> {
        document["channels"][channel]["messages"].as_object().unwrap().keys().map(String::as_str).collect()
    };
    assert_eq!(kinds("events"), ["created", "deleted", "position", "ready", "reset", "updated"].into());
    assert!(kinds("socketIo").contains("error"));
    let mut examples = 0;
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        for example in message["examples"].as_array().into_iter().flatten() {
            check(&document, &message["payload"], &example["payload"], name);
            examples += 1;
        }
    }
    assert!(examples > 25, "{examples}");
    server.stop().await;
}

#[tokio::test]
async fn what_the_document_says_of_frames_is_what_comes() {
    let server = TestServer::start().await;
    let document = document(&server).await;
    let messages = &document["components"]["messages"];
    let mut follower = server.follow("room=general&inbox=Ana").await;
    // `follow` has waited for that one.
    let mut seen = BTreeSet::from(["ready".to_owned()]);
    let is_said_by_clients = |kind: &str| ["send", "subscribe", "unsubscribe"].contains(&kind);
    // Everything that clients are shown to say is said, and everything that comes is looked at.
    let said = messages.as_object().unwrap().iter().filter(|(kind, _)| is_said_by_clients(kind));
    let said: Vec<&Value> = said.flat_map(|(_, message)| message["examples"].as_array().unwrap()).collect();
    for example in &said {
        follower.send(example["payload"].clone()).await;
    }
    follower.send(json!({ "type": "send", "sender": "Ana", "content": "" })).await;
    follower.send(json!({ "type": "send", "id": 7 })).await;
    follower.send(json!("nothing")).await;
    // The examples leave rooms too, so what others do is followed in one of its own.
    let own_room = json!({ "room": "of its own" });
    follower.send(json!({ "type": "subscribe", "room": "of its own" })).await;
    let mut look_at = |frame: Value| {
        let kind = frame["type"].as_str().unwrap().to_owned();
        check(&document, &messages[&kind]["payload"], &frame, &kind);
        seen.insert(kind);
        seen.iter().filter(|kind| *kind != "position").count()
    };
    loop {
        let frame = follower.next().await.expect("the socket stays open");
        look_at(frame.clone());
        if frame["type"] == "subscribed" && frame["topic"] == own_room {
            break;
        }
    }
    server.say("of its own", "to be edited").await;
    let filter = mongodb::bson::doc! { "content": "to be edited" };
    let edit = mongodb::bson::doc! { "$set": { "content": "edited" } };
    server.messages().update_one(filter, edit).await.unwrap();
    server.messages().delete_one(mongodb::bson::doc! { "content": "edited" }).await.unwrap();
    server.messages().drop().await.unwrap();
    let expected = ["created", "updated", "deleted", "ready", "reset", "subscribed", "unsubscribed", "sent", "error"];
    while look_at(follower.next().await.expect("the socket stays open")) < expected.len() {}
    seen.remove("position");
    assert_eq!(seen, expected.into_iter().map(str::to_owned).collect());
    server.stop().await;
}

#[tokio::test]
async fn the_page_about_live_events_shows_every_frame_and_close_code_of_the_document() {
    let server = TestServer::start().await;
    let document = document(&server).await;
    for language in ["en", "es"] {
        let request = server.request(reqwest::Method::GET, "/docs/realtime").header("accept-language", language);
        let page = crate::harness::Answer::to(request).await;
        assert_eq!((page.status.as_u16(), page.header("content-language")), (200, language));
        assert!(page.header("content-security-policy").contains("default-src 'self'"), "{:?}", page.headers);
        for kind in document["channels"]["websocket"]["messages"].as_object().unwrap().keys() {
            assert!(page.text.contains(&format!("id=\"frame-{kind}\"")), "{kind} is not on the page");
        }
        let tag = |kind: &str| {
            let frame = page.text.split(&format!("id=\"frame-{kind}\"")).nth(1).unwrap();
            frame.split("class=\"tag\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
        };
        let is_everywhere = tag("created");
        assert_ne!(tag("ready"), is_everywhere);
        assert!(tag("ready").contains("/api/changes") && tag("position").contains("/api/changes"), "{}", tag("ready"));
        assert_eq!((tag("deleted"), tag("reset")), (is_everywhere.clone(), is_everywhere));
        assert!(tag("error").contains("Socket.IO") && !tag("send").contains("Socket.IO"), "{}", tag("error"));
        for close in document["channels"]["websocket"]["x-close-codes"].as_array().unwrap() {
            assert!(page.text.contains(&format!("id=\"close-{}\"", close["code"])), "{close} is not on the page");
        }
    }
    // The REST documentation leads to it, and it stands where the nest of that one would be.
    assert!(server.fetch("/docs").await.text.contains("/docs/realtime"));
    server.stop().await;
}

#[tokio::test]
async fn the_type_of_every_problem_leads_to_a_page_that_says_what_to_do() {
    let server = TestServer::start().await;
    let problems = [
        server.fetch("/nowhere").await.json(),
        server.fetch("/ws").await.json(),
        server.send(json!({})).await.json(),
        server.request(reqwest::Method::PUT, "/api/messages").send().await.unwrap().json().await.unwrap(),
    ];
    let mut titles = BTreeSet::new();
    for problem in problems {
        let page = server.fetch(problem["type"].as_str().unwrap()).await;
        assert_eq!(page.status, 200, "{problem}");
        let title = problem["title"].as_str().unwrap().to_owned();
        assert!(page.text.contains(&title) && page.text.contains(&problem["status"].to_string()), "{}", page.text);
        titles.insert(title);
    }
    assert_eq!(titles.len(), 4);
    server.fetch("/problems/nothing").await.expect_problem(404, "not-found");
    server.stop().await;
}
