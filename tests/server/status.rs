//! How the server is, for people: `/api/status` and the page `/status`.

use mongodb::bson::{Document, doc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, FreshDatabase, TestServer, eventually};

async fn status(server: &TestServer) -> Value {
    let (status, body) = server.get("/api/status").await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn it_says_what_happens_and_which_rooms_are_busy_and_names_nobody() {
    let server = TestServer::start().await;
    let fresh = status(&server).await;
    assert_eq!((&fresh["stream"], &fresh["rooms"]), (&json!("live"), &json!([])), "{fresh}");
    assert_eq!(fresh["invalid_documents"], json!([]), "{fresh}");
    let mut follower = server.follow("all=true").await;
    let _in_general = server.follow("room=general").await;
    for n in 0..12 {
        server.say(if n % 3 == 0 { "dev" } else { "general" }, &n.to_string()).await;
    }
    let direct = json!({ "sender": "Secreta", "recipient": "Callada", "content": "psst" });
    assert_eq!(server.post(direct).await.0, 201);
    let messages = server.messages();
    messages.insert_one(doc! { "content": "x" }).bypass_document_validation(true).await.unwrap();
    follower.expect_contents(13).await;

    let body = eventually("a sample with all of that", async || {
        let body = status(&server).await;
        let rooms = body["rooms"].as_array().unwrap();
        let told: u64 = rooms.iter().map(|room| room["messages"].as_u64().unwrap()).sum();
        (told == 12 && !body["invalid_documents"].as_array().unwrap().is_empty()).then_some(body)
    })
    .await;
    let rooms = json!([
        { "room": "general", "messages": 8, "here": 1 },
        { "room": "dev", "messages": 4, "here": 0 },
    ]);
    assert_eq!(body["rooms"], rooms);
    assert_eq!(body["invalid_documents"], json!([{ "name": "sender", "count": 1 }]));
    assert_eq!(body["connections"][0], json!({ "name": "websocket", "count": 2 }));
    let own = &body["servers"][0];
    assert_eq!((&own["is_this"], &own["connections"], &own["stream"]), (&json!(true), &json!(2), &body["stream"]));
    assert!(!body.to_string().contains("Secreta") && !body.to_string().contains("Callada"), "{body}");
    let samples = body["samples"].as_array().unwrap();
    let sum = |field: &str| samples.iter().map(|sample| sample[field].as_f64().unwrap_or(0.0)).sum::<f64>();
    let seconds = body["sample_seconds"].as_f64().unwrap();
    // Rates over the time that truly passed, which a busy machine makes longer than a sample is meant to be, so the bounds
    // are wide; that all of it is in some sample is the point.
    assert!((4.0..16.0).contains(&(sum("messages_per_second") * seconds)), "{samples:?}");
    assert!((7.0..24.0).contains(&(sum("deliveries_per_second") * seconds)), "{samples:?}");
    assert!(samples.iter().any(|sample| sample["delay_median_seconds"].as_f64().is_some()), "{samples:?}");
    assert_eq!(samples.last().unwrap()["connections"], 2);

    // Who knows a sample asks for what came after it.
    let newest = samples.last().unwrap()["at"].as_str().unwrap();
    let (_, later) = server.get(&format!("/api/status?after={newest}")).await;
    let later = later["samples"].as_array().unwrap();
    assert!(later.len() <= 1 && later.iter().all(|sample| sample["at"].as_str().unwrap() > newest), "{later:?}");
    server.fetch("/api/status?after=yesterday").await.expect_problem(422, "invalid-field");
    server.fetch("/api/status?before=x").await.expect_problem(422, "invalid-field");
    server.stop().await;
}

#[tokio::test]
async fn servers_over_one_database_know_each_other_until_one_stops() {
    let one = TestServer::start().await;
    let other = TestServer::start_on(one.database.name(), &[]).await;
    let port = |server: &TestServer| server.url.rsplit(':').next().unwrap().to_owned();
    for (server, another) in [(&one, &other), (&other, &one)] {
        let servers = eventually("both servers", async || {
            let servers = status(server).await["servers"].as_array().unwrap().clone();
            (servers.len() == 2).then_some(servers)
        })
        .await;
        assert_eq!((&servers[0]["is_this"], &servers[1]["is_this"]), (&json!(true), &json!(false)), "{servers:?}");
        for (known, of) in [(&servers[0], server), (&servers[1], another)] {
            assert!(known["name"].as_str().unwrap().ends_with(&format!(":{}", port(of))), "{known}");
            assert_eq!(known["stream"], "live", "{known}");
            assert!(known["said_seconds_ago"].as_u64().unwrap() <= 30, "{known}");
        }
    }
    other.stop().await;
    eventually("one server", async || (status(&one).await["servers"].as_array().unwrap().len() == 1).then_some(()))
        .await;
    one.stop().await;
}

#[tokio::test]
async fn a_server_that_was_killed_and_is_started_again_is_listed_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let fresh = FreshDatabase::new().await;
    let server = TestServer::start_on(fresh.name(), &["--port", &port]).await;
    let reports = fresh.collection::<Document>("corriente_presence_messages");
    let left = eventually("its report", async || reports.find_one(doc! {}).await.unwrap()).await;
    server.stop().await;
    // Who is killed does not take it away.
    reports.insert_one(&left).await.unwrap();
    reports.insert_one(doc! { "server": { "name": "another:3000" } }).await.unwrap();

    let again = TestServer::start_on(fresh.name(), &["--port", &port]).await;
    eventually("its new report, and not the old one", async || {
        let of_name = doc! { "server.name": left.get_document("server").unwrap().get_str("name").unwrap() };
        let new = doc! { "_id": { "$ne": left.get_object_id("_id").unwrap() } };
        let (all, new) =
            (reports.count_documents(of_name.clone()), reports.count_documents(doc! { "$and": [of_name, new] }));
        (all.await.unwrap() == 1 && new.await.unwrap() == 1).then_some(())
    })
    .await;
    eventually("one server", async || (status(&again).await["servers"].as_array().unwrap().len() == 1).then_some(()))
        .await;
    let others = reports.count_documents(doc! { "server.name": "another:3000" });
    assert_eq!(others.await.unwrap(), 1, "nobody else's is taken away");
    again.stop().await;
}

#[tokio::test]
async fn the_page_is_whole_without_a_script_in_both_languages() {
    let server = TestServer::start().await;
    server.say("<b>&amp;", "x").await;
    let page = async |language: &str| {
        Answer::to(server.request(Method::GET, "/status").header("accept-language", language)).await
    };
    let english = eventually("the room is on the page", async || {
        let english = page("en").await;
        english.text.contains("/rooms/%3Cb%3E%26amp%3B").then_some(english)
    })
    .await;
    assert!(!english.text.contains("<b>"), "{}", english.text);
    assert_eq!(english.header("content-type"), "text/html; charset=utf-8");
    assert!(english.header("content-security-policy").starts_with("default-src 'self'"));
    assert!(!english.text.contains("style=") && !english.text.contains("onclick"), "{}", english.text);
    for words in
        ["<html lang=\"en\">", "Live", "Behind the database", "Busiest rooms", "this one", "websocket", "None."]
    {
        assert!(english.text.contains(words), "{words} in {}", english.text);
    }
    let spanish = page("es").await;
    for words in ["<html lang=\"es\">", "En directo", "Retraso", "Salas con más actividad", "este", "Ninguno."] {
        assert!(spanish.text.contains(words), "{words} in {}", spanish.text);
    }
    server.stop().await;
}
