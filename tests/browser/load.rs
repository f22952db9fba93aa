//! It is light to load, and a flood does not stop it.

use std::time::Duration;

use mongodb::bson::{DateTime, doc};
use reqwest::Method;
use tokio::time::{Instant, sleep_until};

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

/// The first page in all, compressed.
const FIRST_PAGE_BYTES_MAX: usize = 60 * 1024;

#[tokio::test]
async fn the_first_page_is_small_and_its_files_are_kept_for_ever() {
    let server = TestServer::start().await;
    let text = "Un mensaje como otro cualquiera, con sus palabras y su longitud. ".repeat(2);
    let documents = (0..60).map(|n| {
        doc! { "content": format!("{n} {text}"), "sender": format!("Persona {}", n % 7), "date": DateTime::now() }
    });
    server.messages().insert_many(documents).await.unwrap();
    let get = async |path: &str| {
        let request = server.request(Method::GET, path).header("accept-encoding", "gzip");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let header = |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (kept, coding) = (header("cache-control"), header("content-encoding"));
        (response.bytes().await.unwrap().len(), kept, coding)
    };
    let page = server.fetch("/rooms/general").await.text;
    let (mut total, _, coding) = get("/rooms/general").await;
    assert_eq!(coding, "gzip");
    let head = page.split("</head>").next().unwrap();
    let files = head.split("\"/static/").skip(1).map(|rest| rest.split('"').next().unwrap());
    let files: std::collections::BTreeSet<&str> = files.collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let (bytes, kept, _) = get(&format!("/static/{file}")).await;
        assert_eq!(kept, "public, max-age=31536000, immutable", "{file}");
        if !file.ends_with(".png") {
            total += bytes;
        }
    }
    assert!(total < FIRST_PAGE_BYTES_MAX, "{total} bytes");
    // Where other pages import it: a name that stays, asked for again each time, and the same module.
    let (_, kept, _) = get("/client.js").await;
    assert_eq!(kept, "no-cache");
    let tag = server.fetch("/client.js").await.header("etag").to_owned();
    let again = server.request(Method::GET, "/client.js").header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(get("/favicon.ico").await.1, "no-cache");
    server.stop().await;
}

#[tokio::test]
async fn what_the_server_rendered_does_not_move_when_the_page_becomes_live() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let documents = (0..60).map(|n| doc! { "content": n.to_string(), "sender": "Luis", "date": DateTime::now() });
        server.messages().insert_many(documents).await.unwrap();
        for width in [1200, 400] {
            chromium
                .window(Window { width, ..Window::default() }, async |ana| {
                    ana.open_live(&format!("{}/rooms/general", server.url)).await;
                    ana.wait("all of it has come", async || ana.text_of("#here").await == "1 here").await;
                    // The share of the window that moved, times how far, as browsers count it: 0.1 is called good.
                    let shift = "const done = arguments[0]; let sum = 0;
                        new PerformanceObserver((list) => {
                            for (const { value } of list.getEntries()) sum += value;
                        }).observe({ type: 'layout-shift', buffered: true });
                        requestAnimationFrame(() => requestAnimationFrame(() => done(sum)))";
                    let shift = ana.driver.execute_async(shift, Vec::new()).await.unwrap().convert::<f64>().unwrap();
                    assert!(shift < 0.02, "{shift} at {width} px");
                })
                .await;
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn five_hundred_messages_a_second_do_not_stop_the_page() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                let watch = "let last = performance.now(); window.worst = 0; const frame = (now) => {
                    window.worst = Math.max(window.worst, now - last); last = now; requestAnimationFrame(frame); };
                    requestAnimationFrame(frame);
                    window.changes = 0; new MutationObserver(() => window.changes += 1).observe(
                    document.getElementById('rows'), { childList: true })";
                ana.driver.execute(watch, Vec::new()).await.unwrap();
                let start = Instant::now();
                let date = DateTime::now().timestamp_millis();
                for batch in 0..30 {
                    let documents = (batch * 50..(batch + 1) * 50).map(|n| {
                        doc! { "content": n.to_string(), "sender": "robot", "date": DateTime::from_millis(date + n) }
                    });
                    server.messages().insert_many(documents).await.unwrap();
                    sleep_until(start + Duration::from_millis(100 * (batch as u64 + 1))).await;
                }
                ana.wait("the last one is there", async || {
                    ana.messages().await.last().is_some_and(|last| last == "1499")
                })
                .await;
                let messages = ana.messages().await;
                // The rows are capped, and those that are there have no hole.
                assert!(messages.len() <= 1_100, "{} rows", messages.len());
                let expected: Vec<String> = (1_500 - messages.len()..1_500).map(|n| n.to_string()).collect();
                assert_eq!(messages, expected);
                // Gathered: however fast they come, the page is not changed more often than it is drawn.
                let changes: u64 = ana.ask("return window.changes").await;
                // Letting go of the oldest rows is a change of its own.
                let frames_max = 2 * start.elapsed().as_millis() / 15;
                assert!(changes > 0 && u128::from(changes) <= frames_max, "{changes} changes, {frames_max} frames");
                let worst: f64 = ana.ask("return window.worst").await;
                println!("500 messages a second: {changes} changes of the page, the longest frame took {worst:.0} ms");
            })
            .await;
        server.stop().await;
    })
    .await;
}
