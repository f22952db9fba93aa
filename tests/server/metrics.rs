//! Metrics: OpenMetrics by a strict parser, documented, asked for by the dashboard and the alerts under their names, and
//! each moves when the thing happens that it counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use mongodb::bson::doc;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};

use crate::{
    faults::World,
    harness::{Answer, TestServer, eventually},
    programs::Language,
};

/// A metric as somebody else's parser has read it.
struct Family {
    kind: String,
    unit: String,
    help: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// By the names under which they are asked for: counters with their suffix, histograms without one.
async fn parsed(server: &TestServer, python: &Language) -> BTreeMap<String, Family> {
    let printed = python.run("metrics.py", &[&format!("{}/metrics", server.url)]).await;
    let families: Vec<Value> = serde_json::from_str(&printed).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sample = |sample: &Value| {
        let labels = sample[1].as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value)));
        (text(&sample[0]), labels.collect(), sample[2].as_f64().unwrap())
    };
    let family = |family: &Value| {
        let kind = text(&family["type"]);
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let samples = family["samples"].as_array().unwrap().iter().map(sample).collect();
        let (unit, help) = (text(&family["unit"]), text(&family["help"]));
        (text(&family["name"]) + suffix, Family { kind, unit, help, samples })
    };
    families.iter().map(family).collect()
}

fn repository_file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Every name of ours in a text.
fn names_in(text: &str) -> BTreeSet<&str> {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    parts.filter(|part| part.starts_with("corriente_")).collect()
}

#[tokio::test]
async fn a_strict_parser_reads_every_metric_and_each_is_documented_with_its_labels() {
    let Some(python) = Language::python().await else { return };
    let server = TestServer::start().await;
    server.say("general", "x").await;
    let families = parsed(&server, &python).await;
    for (name, Family { kind, unit, help, samples }) in &families {
        assert!(!help.is_empty() && !samples.is_empty(), "{name} is empty on a fresh server");
        let base = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        assert_eq!(unit, base.unwrap_or(""), "{name}, a {kind}");
        assert!(!name.contains("milli"), "{name}");
    }
    // The first column of the tables: a name, and its labels but those of the kind.
    let docs = repository_file("docs/metrics.md");
    let documented: BTreeMap<&str, BTreeSet<&str>> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `corriente_")?.split_once("` |"))
        .map(|(named, _)| {
            let (name, labels) = named.split_once('{').unwrap_or((named, ""));
            (name, labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect())
        })
        .collect();
    let registered: BTreeMap<&str, BTreeSet<&str>> = families
        .iter()
        .map(|(name, family)| {
            let labels = family.samples.iter().flat_map(|(_, labels, _)| labels.keys().map(String::as_str));
            (name.strip_prefix("corriente_").unwrap(), labels.filter(|label| *label != "le").collect())
        })
        .collect();
    assert_eq!(documented, registered);
    // And each word that there is from the start, in the row of its metric.
    for (name, label) in [("inserts", "outcome"), ("refusals", "reason"), ("replays", "outcome")] {
        let row = docs.lines().find(|line| line.starts_with(&format!("| `corriente_{name}_total{{"))).unwrap();
        for (_, labels, _) in &families[&format!("corriente_{name}_total")].samples {
            assert!(row.contains(&format!("`{}`", labels[label])), "{name}: {labels:?} is not documented");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
    let Some(python) = Language::python().await else { return };
    let server = TestServer::start().await;
    let families = parsed(&server, &python).await;
    let samples: BTreeSet<&str> =
        families.values().flat_map(|family| family.samples.iter().map(|(name, ..)| name.as_str())).collect();

    let dashboard: Value = serde_json::from_str(&repository_file("deploy/grafana-dashboard.json")).unwrap();
    let mut asked = BTreeSet::new();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let names = names_in(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{target}");
            asked.extend(names);
        }
    }
    for name in &asked {
        assert!(samples.contains(name), "the dashboard asks for {name}");
    }
    for name in families.keys().filter(|name| *name != "corriente_build_info") {
        assert!(asked.iter().any(|asked| asked.starts_with(name.as_str())), "the dashboard does not show {name}");
    }

    let alerts: Value = serde_yaml::from_str(&repository_file("deploy/prometheus-alerts.yaml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 5);
    for rule in rules {
        for name in names_in(rule["expr"].as_str().unwrap()) {
            assert!(samples.contains(name), "{} asks for {name}", rule["alert"]);
        }
        for words in ["summary", "description"] {
            assert!(rule["annotations"][words].is_string(), "{words} of {}", rule["alert"]);
        }
        assert!(rule["labels"]["severity"].is_string(), "{}", rule["alert"]);
    }
    server.stop().await;
}

/// Waits until a series is at `value`.
async fn expect(server: &TestServer, series: &str, value: u64) {
    eventually(&format!("{series} {value}"), async || (server.metric(series).await == value).then_some(())).await;
}

#[tokio::test]
async fn messages_are_counted_from_the_hand_that_writes_them_to_the_connection_that_gets_them() {
    let server = TestServer::start().await;
    let mut socket = server.follow("all=true").await;
    let _events = server.request(Method::GET, "/api/events?room=general").send().await.unwrap();
    expect(&server, "corriente_connections{transport=\"websocket\"}", 1).await;
    expect(&server, "corriente_connections{transport=\"sse\"}", 1).await;
    expect(&server, "corriente_connections{transport=\"long-poll\"}", 0).await;

    let inserts =
        |source: &str, outcome: &str| format!("corriente_inserts_total{{source=\"{source}\",outcome=\"{outcome}\"}}");
    let message = server.say("general", "hola").await;
    let again = json!({ "room": "general", "sender": "Ana", "content": "hola", "id": message["id"] });
    assert_eq!(server.post(again.clone()).await.0, 200);
    let other = json!({ "room": "general", "sender": "Ana", "content": "no", "id": message["id"] });
    assert_eq!(server.post(other).await.0, 409);
    let form = server.request(Method::POST, "/rooms/general").form(&[("sender", "Ana"), ("content", "x")]);
    assert_eq!(Answer::to(form).await.status, 303);
    socket.send(json!({ "type": "send", "room": "dev", "sender": "Ana", "content": "x" })).await;
    for (source, outcome) in
        [("rest", "created"), ("rest", "repeated"), ("rest", "conflict"), ("form", "created"), ("websocket", "created")]
    {
        expect(&server, &inserts(source, outcome), 1).await;
    }
    expect(&server, &inserts("socket.io", "created"), 0).await;
    // Each alone: the three that are new, and the two whose ids were taken.
    expect(&server, "corriente_insert_batch_size_count", 5).await;

    // What other programs do.
    let ours = doc! { "content": "hola" };
    server.messages().update_one(ours.clone(), doc! { "$set": { "content": "adiós" } }).await.unwrap();
    server.messages().delete_one(doc! { "content": "adiós" }).await.unwrap();
    let messages = server.messages();
    messages.insert_one(doc! { "sender": "Ana" }).bypass_document_validation(true).await.unwrap();
    for (kind, count) in [("insert", 3), ("edit", 1), ("delete", 1), ("invalid", 1)] {
        expect(&server, &format!("corriente_events_total{{kind=\"{kind}\"}}"), count).await;
    }
    expect(&server, "corriente_invalid_documents_total{reason=\"content\"}", 1).await;
    expect(&server, "corriente_log_entries", 6).await;
    assert!(server.metric("corriente_log_bytes").await > 6 * 500);

    // All five to who follows everything, and four to who follows the room.
    expect(&server, "corriente_deliveries_total", 9).await;
    assert!(server.metric("corriente_delivery_delay_seconds_count").await > 0, "none of nine was looked at");
    let bound = "corriente_delivery_delay_seconds_bucket{le=\"30.0\"}";
    assert!(server.metric(bound).await > 0, "all of them took longer than half a minute");

    drop(socket);
    expect(&server, "corriente_connections{transport=\"websocket\"}", 0).await;
    server.stop().await;
}

#[tokio::test]
async fn what_a_client_missed_is_delivered_but_says_nothing_of_delay() {
    let server = TestServer::start().await;
    let began = server.fetch("/api/changes?all=true").await.json()["cursor"].as_str().unwrap().to_owned();
    for n in 0..40 {
        server.say("general", &n.to_string()).await;
    }
    // All of it is past when the client comes.
    expect(&server, "corriente_log_entries", 40).await;
    let mut back = server.join(&format!("room=general&after={began}")).await;
    back.expect_contents(40).await;
    back.expect("ready").await;
    expect(&server, "corriente_deliveries_total", 40).await;
    assert_eq!(server.metric("corriente_delivery_delay_seconds_count").await, 0);
    let mut lost = server.join("room=general&after=garbage").await;
    lost.expect("reset").await;
    expect(&server, "corriente_resets_total{reason=\"the cursor is not one of this server\"}", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_the_pattern_of_their_path() {
    let server = TestServer::start().await;
    for path in ["/api/messages/x", "/api/messages/y", "/rooms/secret", "/rooms/..%2f", "/nowhere/secret", "/ws", "/"] {
        server.fetch(path).await;
    }
    let _socket = server.follow("room=secret").await;
    server.post(json!({})).await;
    for method in [Method::DELETE, Method::from_bytes(b"SECRET").unwrap()] {
        Answer::to(server.request(method, "/api/messages")).await;
    }
    let text = server.fetch("/metrics").await.text;
    let counted = |route: &str, method: &str, status: u16| {
        let series =
            format!("corriente_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    };
    for (route, method, status, count) in [
        ("/api/messages/:id", "GET", 404, 2),
        ("/rooms/:room", "GET", 200, 1),
        ("/rooms/:room", "GET", 404, 1),
        ("none", "GET", 404, 1),
        ("/ws", "GET", 426, 1),
        ("/ws", "GET", 101, 1),
        ("/api/messages", "POST", 422, 1),
        ("/api/messages", "other", 405, 2),
    ] {
        assert_eq!(counted(route, method, status), count, "{method} {route} {status} in\n{text}");
    }
    assert!(!text.to_lowercase().contains("secret"), "{text}");
    let duration = "corriente_http_request_duration_seconds_count{route=\"/api/messages/:id\",method=\"GET\"}";
    assert_eq!(server.metric(duration).await, 2);
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_read_is_counted_while_that_lasts() {
    let server = TestServer::start().await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stuck = TcpStream::connect(address).await.unwrap();
    let handshake = "GET /ws?room=general HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stuck.write_all(handshake.as_bytes()).await.unwrap();
    let mut quick = server.follow("room=general").await;
    // More than the kernel takes for one that does not read.
    for _ in 0..10 {
        let content = "語".repeat(3_900);
        let documents = (0..100).map(|_| doc! { "content": &content, "sender": "Ana", "room": "general" });
        server.messages().insert_many(documents).await.unwrap();
        quick.expect_contents(100).await;
    }
    expect(&server, "corriente_readers_behind", 1).await;
    tokio::spawn(async move {
        let mut read = vec![0; 1 << 16];
        while stuck.read(&mut read).await.is_ok_and(|count| count > 0) {}
    });
    expect(&server, "corriente_readers_behind", 0).await;
    server.stop().await;
}

#[tokio::test]
async fn the_lag_grows_while_the_stream_is_away_and_is_gone_when_it_is_back() {
    let world = World::shared().await;
    let lag = async || {
        let (_, text) = world.get(0, "/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix("corriente_stream_lag_seconds "));
        value.and_then(|value| value.parse::<f64>().ok()).expect("a lag")
    };
    let age = async || {
        let (_, text) = world.get(0, "/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix("corriente_stream_position_age_seconds "));
        value.and_then(|value| value.parse::<f64>().ok()).expect("an age")
    };
    world.say("x").await;
    eventually("no lag", async || (lag().await < 1.0).then_some(())).await;
    eventually("a position that has moved just now", async || (age().await < 1.0).then_some(())).await;
    let before = world.reopens().await;
    let turn = world.fail(&["getMore", "aggregate"], 10_000, doc! { "errorCode": 91 }).await;
    eventually("a lag", async || (lag().await > 3.0).then_some(())).await;
    assert!(world.reopens().await > before);
    assert!(age().await > 2.0);
    world.heal().await;
    drop(turn);
    world.expect_ready().await;
    eventually("no lag any more", async || (lag().await < 1.0).then_some(())).await;
    world.stop().await;
}
