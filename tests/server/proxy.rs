//! HAProxy in front of servers, with the configuration of `deploy/`.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
};

use crate::{harness::eventually, programs::or_skip};

/// The sample that operators begin with.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy.cfg");

/// The names of the servers in the configuration.
pub const NAMES: [&str; 3] = ["one", "two", "three"];

/// A running HAProxy. Dropping it kills it.
pub struct Proxy {
    pub url: String,
    log: Arc<Mutex<Vec<String>>>,
    _child: Child,
}

impl Proxy {
    /// Starts one on `port` in front of the servers at `urls`. `None`, loudly, where there is no HAProxy; see [`or_skip`].
    pub async fn start(port: u16, urls: &[String; 3]) -> Option<Self> {
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", CONFIGURATION]).env("LISTEN", format!("127.0.0.1:{port}"));
        for (variable, url) in ["SERVER_1", "SERVER_2", "SERVER_3"].iter().zip(urls) {
            command.env(variable, url.trim_start_matches("http://"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let started = command.spawn().map_err(|error| format!("it could not be started: {error}"));
        let mut child = or_skip("HAProxy", started)?;
        let mut lines = BufReader::new(child.stdout.take().expect("its log")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().await.push(line);
            }
        });
        let proxy = Self { url: format!("http://127.0.0.1:{port}"), log, _child: child };
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("an HTTP client");
        eventually("a server answers through the proxy", async || {
            let answer = http.get(format!("{}/api/rooms", proxy.url)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        Some(proxy)
    }

    /// Waits until it takes no server for gone. One that was away for less than two checks it has not missed.
    pub async fn expect_all_up(&self) {
        eventually("the proxy knows that its servers are back", async || {
            let log = self.log.lock().await;
            let count =
                |what: &str| log.iter().filter(|line| line.contains("Server servers/") && line.contains(what)).count();
            (count(" is DOWN") == count(" is UP")).then_some(())
        })
        .await;
    }
}
