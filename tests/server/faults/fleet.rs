//! Three servers over a set of three members, behind HAProxy, and all of them are replaced one after the other while people
//! talk: nothing is lost, doubled or reordered over any transport, and not everybody comes back at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use mongo_replica_set::Options;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    ports::lasting_port,
    program::Program,
    stage::dial,
    traffic::{Load, Traffic},
    world::{World, expect_kept},
};
use crate::{
    harness::{PATIENCE_SECS, eventually},
    programs::Language,
    proxy::{NAMES, Proxy},
};

/// Readers of a quiet room, so many that a server that stops takes a while to let go of all of its own.
const QUIET: usize = 300;
/// A server lets go of so many a second.
const LET_GO_PER_SECOND: f64 = 200.0;

/// What becomes of quiet readers.
enum Quiet {
    /// One was told to come back, by the close code 1012.
    ToldToComeBack(Instant),
    /// One was cut without a word, or refused.
    Cut,
    /// One has got the last message, and this is all that it got.
    Done(Vec<String>),
}

/// Follows the room `quiet` until its message `end`, and comes back as a page does: with its cursor, a moment later.
async fn follow_quietly(url: String, mut cursor: String, live: Arc<AtomicUsize>, tell: mpsc::UnboundedSender<Quiet>) {
    let mut contents = Vec::new();
    loop {
        let Some(mut socket) = dial(&url, &format!("room=quiet&after={cursor}")).await else {
            let _ = tell.send(Quiet::Cut);
            sleep(Duration::from_millis(rand::random_range(20..200))).await;
            continue;
        };
        let mut is_live = false;
        let end = loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).expect("a frame of JSON");
                    cursor = frame["cursor"].as_str().expect("a cursor").to_owned();
                    match frame["type"].as_str() {
                        Some("created") => contents.push(frame["message"]["content"].to_string()),
                        Some("ready") if !is_live => {
                            is_live = true;
                            live.fetch_add(1, Ordering::Relaxed);
                        }
                        Some("ready" | "position") => {}
                        _ => contents.push(frame.to_string()),
                    }
                    if contents.last().is_some_and(|content| content == "\"end\"") {
                        let _ = tell.send(Quiet::Done(contents));
                        return;
                    }
                }
                Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 1012 => {
                    break Quiet::ToldToComeBack(Instant::now());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => break Quiet::Cut,
            }
        };
        if is_live {
            live.fetch_sub(1, Ordering::Relaxed);
        }
        let _ = tell.send(end);
        sleep(Duration::from_millis(rand::random_range(20..200))).await;
    }
}

#[tokio::test]
async fn a_rolling_restart_behind_a_proxy_under_load_loses_nothing_over_any_transport() {
    let Some(node) = Language::node().await else {
        return;
    };
    let world = World::own(Options { members: 3, ..Options::default() }, 0).await;
    let mut servers = Vec::new();
    for _ in NAMES {
        servers.push(Program::start(&world, lasting_port().unwrap()).await);
    }
    let urls: [String; 3] = std::array::from_fn(|n| servers[n].url.clone());
    let Some(proxy) = Proxy::start(lasting_port().unwrap(), &urls).await else {
        return;
    };
    let http = reqwest::Client::new();
    let get = async |path: &str| -> Value {
        let answer = http.get(format!("{}{path}", proxy.url)).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    };
    let start = get("/api/messages?room=a").await["cursor"].as_str().expect("a cursor").to_owned();

    let (tell, mut told) = mpsc::unbounded_channel();
    let (live, mut quiet) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..QUIET {
        quiet.spawn(follow_quietly(proxy.url.clone(), start.clone(), live.clone(), tell.clone()));
    }
    let everybody_is_live = async || {
        eventually("every quiet reader is live", async || (live.load(Ordering::Relaxed) == QUIET).then_some(())).await;
    };
    everybody_is_live().await;
    let load = Load { rest_writers: 2, socket_writers: 2, driver_writers: 1, readers: 3, ..Load::default() };
    let traffic = Traffic::start(vec![proxy.url.clone()], world.messages(), &load);
    let programs = {
        let (url, start) = (proxy.url.clone(), start.clone());
        tokio::spawn(async move { node.run("fleet.cjs", &[&url, &start, "the end"]).await })
    };
    assert!(traffic.flows(5).await);

    for (n, name) in NAMES.into_iter().enumerate() {
        let on_this = sessions(&servers[n].url).await;
        assert!(on_this > QUIET / 10, "the proxy left {name} with {on_this} of {QUIET} quiet readers");
        while told.try_recv().is_ok() {}
        servers[n].stop().await;
        let moments = moments_of(&mut told);
        // The first and the last of so many random moments are nearly the whole time apart; half of it is asked for.
        let window = Duration::from_secs_f64(moments.len() as f64 / LET_GO_PER_SECOND);
        assert!(moments.len() > QUIET / 10, "{name} told {} readers to come back", moments.len());
        let took = *moments.last().unwrap() - moments[0];
        assert!(took > window / 2, "{name} let go of {} readers within {took:?}", moments.len());
        servers[n].start_again(&world).await;
        proxy.expect_all_up().await;
        everybody_is_live().await;
        assert!(traffic.flows(5).await);
    }

    let (verdict, ..) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    for (room, content) in [("quiet", "end"), ("a", "the end")] {
        let body = json!({ "room": room, "sender": "Ana", "content": content });
        let sent = http.post(format!("{}/api/messages", proxy.url)).json(&body).send().await.expect("an answer");
        assert_eq!(sent.status(), 201);
    }
    let everybody = async {
        let mut done = 0;
        while done < QUIET {
            if let Some(Quiet::Done(contents)) = told.recv().await {
                assert_eq!(contents, ["\"end\""], "a quiet reader was told something else too");
                done += 1;
            }
        }
    };
    timeout(Duration::from_secs(PATIENCE_SECS), everybody).await.expect("every quiet reader hears the end");

    // What happened, as any server tells it now, is what the programs were told, each thing once and in this order.
    let changes = get(&format!("/api/changes?all=true&after={start}")).await;
    let happened: Vec<Value> = changes["changes"].as_array().expect("changes").iter().map(frame).collect();
    assert!(happened.len() < 10_000, "one answer holds it all");
    let printed = programs.await.expect("the programs end");
    let readers: Value = serde_json::from_str(&printed).expect("what they saw");
    for transport in ["sse", "socket.io", "polling"] {
        let reader = &readers[transport];
        let frames = reader["frames"].as_array().expect("frames");
        let first_wrong = frames.iter().zip(&happened).find(|(seen, happened)| seen != happened);
        assert_eq!(first_wrong, None, "over {transport}");
        assert_eq!(frames.len(), happened.len(), "over {transport}");
    }
    let connections = |transport: &str| readers[transport]["connections"].as_u64().expect("a number");
    let reconnected: u64 = ["sse", "socket.io", "polling"].into_iter().map(connections).sum();
    assert!(reconnected > 3, "each server was replaced under somebody: {reconnected} connections");
    for mut server in servers {
        server.kill().await;
    }
}

/// How many WebSockets a server has.
async fn sessions(url: &str) -> usize {
    let text = reqwest::get(format!("{url}/metrics")).await.expect("metrics").text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("corriente_connections{transport=\"websocket\"} "));
    line.map_or(0, |count| count.parse().expect("a number"))
}

/// When readers were told to come back since this was asked last. None may have been cut instead.
fn moments_of(told: &mut mpsc::UnboundedReceiver<Quiet>) -> Vec<Instant> {
    let mut moments = Vec::new();
    while let Ok(quiet) = told.try_recv() {
        match quiet {
            Quiet::ToldToComeBack(at) => moments.push(at),
            Quiet::Cut => panic!("a quiet reader was cut without a word"),
            Quiet::Done(contents) => panic!("{contents:?} so early"),
        }
    }
    moments
}

/// A frame as the programs note it.
fn frame(frame: &Value) -> Value {
    let id = if frame["id"].is_string() { &frame["id"] } else { &frame["message"]["id"] };
    json!([frame["type"], frame["cursor"], id])
}
