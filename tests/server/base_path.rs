//! Under a path, for a proxy that has other things at its root.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, TestServer};

const BASE: &str = "/apps/chat";

/// The addresses on this server that a page names.
fn addresses(page: &str) -> Vec<&str> {
    let named = ["href=\"", "src=\"", "action=\""].into_iter().flat_map(|attribute| page.split(attribute).skip(1));
    named.filter_map(|rest| rest.split('"').next()).filter(|address| address.starts_with('/')).collect()
}

#[tokio::test]
async fn every_link_of_a_page_stays_under_the_path_and_leads_somewhere() {
    let server = TestServer::start_with(&["--base-path", BASE]).await;
    assert!(server.url.ends_with(BASE), "{}", server.url);
    let root = server.url.trim_end_matches(BASE).to_owned();
    server.say("dev", "hola").await;
    for path in
        ["/rooms/general", "/inbox/Ana", "/rooms/general?q=hola", "/nowhere", "/rooms/dev?at=6745b2c3d4e5f60718293a4b"]
    {
        let page = Answer::to(server.request(Method::GET, path).header("Accept", "text/html")).await.text;
        let addresses = addresses(&page);
        assert!(addresses.len() > 4, "{path}: {page}");
        for address in addresses {
            assert!(address.starts_with(&format!("{BASE}/")), "{path} leads to {address}");
            let status = reqwest::get(format!("{root}{}", address.replace("&amp;", "&"))).await.unwrap().status();
            assert!(status.is_success(), "{path} leads to {address}: {status}");
        }
    }
    // What the scripts and the stylesheet name is relative, but for the requests of scripts, which a browser's test sees.
    let form = [("content", "from a form"), ("sender", "Ana")];
    for (method, path, to) in [
        (Method::GET, "", "/rooms/general"),
        (Method::GET, "/", "/rooms/general"),
        (Method::GET, "/?room=dev", "/rooms/dev"),
        (Method::GET, "/?inbox=Ana&to=Luis", "/inbox/Ana?to=Luis"),
        (Method::GET, "/rooms/general?before=x", "/rooms/general"),
        (Method::POST, "/rooms/general", "/rooms/general"),
    ] {
        let request = server.request(method.clone(), path);
        let answer = Answer::to(if method == Method::POST { request.form(&form) } else { request }).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, &*format!("{BASE}{to}")), "{path}");
        if method == Method::POST {
            assert!(answer.header("set-cookie").contains("; Path=/apps/chat;"), "{:?}", answer.headers);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn programs_find_everything_under_the_path() {
    let server = TestServer::start_with(&["--base-path", "/apps/chat/"]).await;
    let root = server.url.trim_end_matches(BASE).to_owned();
    let mut follower = server.follow("room=general").await;
    let sent = server.send(json!({ "sender": "Ana", "content": "one" })).await;
    assert_eq!(sent.status, 201);
    follower.expect_next_content("one").await;
    let stored = reqwest::get(format!("{root}{}", sent.header("location"))).await.unwrap();
    assert_eq!(stored.status(), 200, "{}", sent.header("location"));
    server.send(json!({ "sender": "Ana", "content": "two" })).await;
    let next = server.fetch("/api/messages?limit=1").await.link("next").expect("an older page");
    let older: serde_json::Value = reqwest::get(format!("{root}{next}")).await.unwrap().json().await.unwrap();
    assert_eq!(older["messages"][0]["content"], "one");
    let openapi = server.fetch("/openapi.json").await.json();
    assert_eq!(openapi["servers"][0]["url"], BASE);
    let asyncapi = server.fetch("/asyncapi.yaml").await.text;
    let asyncapi: serde_json::Value = serde_yaml::from_str(&asyncapi).unwrap();
    for (name, described) in asyncapi["servers"].as_object().unwrap() {
        assert_eq!(described["pathname"], BASE, "{name}");
    }
    let opened = server.fetch("/socket.io/?EIO=4&transport=polling").await;
    assert!(opened.status == 200 && opened.text.starts_with("0{"), "{opened:?}");
    assert!(!opened.header("engine-io-sid").is_empty(), "for a proxy, which reads headers");
    let changes = server.fetch("/api/changes?room=general").await;
    assert_eq!(changes.status, 200);
    // Of another site's page, here as at the root.
    let foreign = server.request(Method::GET, "/api/events?room=general").header("Origin", "https://evil.example");
    Answer::to(foreign).await.expect_problem(403, "forbidden");
    // What a program compares is the same everywhere; the page for people is under the path.
    let problem = server.fetch("/api/messages/nothing").await.json();
    assert_eq!(problem["type"], "/problems/not-found");
    assert_eq!(server.fetch("/problems/not-found").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn at_the_root_there_is_only_what_operators_ask_a_server_by_itself() {
    let server = TestServer::start_with(&["--base-path", BASE]).await;
    let root = server.url.trim_end_matches(BASE).to_owned();
    let ask = async |path: &str, accept: &str| {
        Answer::to(reqwest::Client::new().get(format!("{root}{path}")).header("Accept", accept)).await
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(path, "*/*").await.status, 200, "{path}");
        assert_eq!(server.fetch(path).await.status, 200, "{path} under the path");
    }
    let counted = async || {
        let metrics = server.fetch("/metrics").await.text;
        let of_rooms = metrics
            .lines()
            .filter(|line| line.starts_with("corriente_http_requests_total") && line.contains("/api/rooms"));
        of_rooms.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    server.fetch("/api/rooms").await;
    assert_eq!(counted().await, 1, "a request is counted once");
    for path in ["/", "/rooms/general", "/api/messages", "/apps", "/apps/chatter"] {
        let problem = ask(path, "*/*").await.expect_problem(404, "not-found");
        assert_eq!(problem["detail"], "no such page; see /apps/chat/docs for what there is");
        let page = ask(path, "text/html").await;
        assert_eq!(page.status, 404);
        assert!(page.text.contains("href=\"/apps/chat/rooms/general\""), "the way home: {}", page.text);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_below_the_path_has_the_same_limits() {
    let server = TestServer::start_with(&["--base-path", BASE, "--rate-requests-per-address", "1"]).await;
    let root = server.url.trim_end_matches(BASE).to_owned();
    let http = reqwest::Client::new();
    let status = async |path: &str| http.get(format!("{root}{path}")).send().await.unwrap().status().as_u16();
    let mut statuses = Vec::new();
    for _ in 0..100 {
        statuses.push(status("/nowhere").await);
    }
    assert_eq!(statuses.first(), Some(&404), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_below_the_path_counts_once() {
    let server = TestServer::start_with(&["--base-path", BASE, "--rate-requests-per-address", "1"]).await;
    for n in 0..9 {
        assert_eq!(server.fetch("/api/status").await.status, 200, "request {n} of the ten that may come at once");
    }
    server.stop().await;
}
