//! A MongoDB to break, servers over it, and clients at work.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use corriente::{app::App, config::Config};
use futures::TryStreamExt;
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client, Collection, Database,
    bson::{Document, doc, oid::ObjectId},
    options::{Acknowledgment, CollectionOptions, ReadConcern, WriteConcern},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep, timeout},
};

use super::{
    checker::{Ledger, ReaderLog, Verdict},
    ports::lasting_port,
    program::{Program, WITHOUT_RATES},
    traffic::{Load, Traffic},
};
use crate::harness::{self, Follower, eventually};

/// A mongod has one `failCommand`, so the tests that use that of the shared one take turns.
static FAIL_POINT: Mutex<()> = Mutex::const_new(());

/// A database with servers over it.
pub struct World {
    pub set: Arc<ReplicaSet>,
    pub database: Database,
    /// The `appName` of the servers' connections, at which fail points aim.
    pub app_name: String,
    pub urls: Vec<String>,
    pub flags: Vec<String>,
    servers: Vec<Option<App>>,
    is_shared: bool,
    http: reqwest::Client,
}

impl World {
    /// On the mongod that all tests share: for faults that are aimed.
    pub async fn shared() -> Self {
        Self::shared_by(1).await
    }

    /// On that mongod with so many servers.
    pub async fn shared_by(servers: usize) -> Self {
        Self::shared_with(servers, &[]).await
    }

    /// The same, whose servers have these flags.
    pub async fn shared_with(servers: usize, flags: &[&str]) -> Self {
        let mut world = Self::on(harness::mongo().await, servers, flags).await;
        world.is_shared = true;
        world
    }

    /// On a MongoDB of its own: for faults that destroy.
    pub async fn own(options: Options, servers: usize) -> Self {
        let set = ReplicaSet::start(Options { test_commands: true, ..options }, |_| {}).await.expect("mongod starts");
        Self::on(Arc::new(set), servers, &[]).await
    }

    pub async fn on(set: Arc<ReplicaSet>, servers: usize, flags: &[&str]) -> Self {
        let name = format!("faults_{}", ObjectId::new().to_hex());
        let client = Client::with_uri_str(set.uri()).await.expect("a client");
        let mut world = Self {
            database: client.database(&name),
            app_name: name,
            urls: vec![String::new(); servers],
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            servers: (0..servers).map(|_| None).collect(),
            set,
            is_shared: false,
            http: http_client(),
        };
        for server in 0..servers {
            world.start_server(server).await;
        }
        world
    }

    /// The servers' URI: that of the set, with our name on it. After an answer such as "not primary" the driver looks at
    /// the member again at the next heartbeat; a real election brings that at once, a fail point does not.
    pub fn uri(&self) -> String {
        format!("{}&appName={}&heartbeatFrequencyMS=500", self.set.uri(), self.app_name)
    }

    /// Starts a server, on its old address if it had one.
    pub async fn start_server(&mut self, server: usize) {
        let port = match self.urls[server].rsplit_once(':') {
            Some((_, port)) => port.to_owned(),
            None => lasting_port().expect("a free port").to_string(),
        };
        let own = ["corriente", "--port", &port, "--database", self.database.name()];
        let config =
            Config::parse_from(own.into_iter().chain(WITHOUT_RATES).chain(self.flags.iter().map(String::as_str)));
        let app = App::start(&config, &self.uri()).await.expect("the server starts");
        self.urls[server] = app.url();
        self.servers[server] = Some(app);
    }

    /// Starts the program, as one more server.
    pub async fn start_program(&mut self) -> Program {
        let program = Program::start(self, lasting_port().expect("a free port")).await;
        self.urls.push(program.url.clone());
        program
    }

    pub async fn stop_server(&mut self, server: usize) {
        if let Some(app) = self.servers[server].take() {
            app.stop().await;
        }
    }

    pub async fn stop(mut self) {
        for server in 0..self.servers.len() {
            self.stop_server(server).await;
        }
    }

    /// The collection as other programs see it that are as careful as we are.
    pub fn messages(&self) -> Collection<Document> {
        let options = CollectionOptions::builder()
            .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build())
            .read_concern(ReadConcern::majority())
            .build();
        self.database.collection_with_options("messages", options)
    }

    pub fn traffic(&self, load: &Load) -> Traffic {
        Traffic::start(self.urls.clone(), self.messages(), load)
    }

    /// Makes `commands` of our servers fail `times` times in the way of `data`. Keep what it returns until the fault is
    /// over.
    pub async fn fail(&self, commands: &[&str], times: i32, mut data: Document) -> Option<MutexGuard<'static, ()>> {
        let turn = if self.is_shared { Some(FAIL_POINT.lock().await) } else { None };
        data.extend(doc! { "failCommands": commands, "appName": &self.app_name });
        self.configure(doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data }).await;
        turn
    }

    pub async fn heal(&self) {
        self.configure(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await;
    }

    pub async fn configure(&self, fail_point: Document) {
        let admin = self.database.client().database("admin");
        admin.run_command(fail_point).await.expect("the fail point is set");
    }

    /// Kills the cursors of our servers' streams in MongoDB, as an operator may.
    pub async fn kill_stream(&self) {
        let admin = self.database.client().database("admin");
        let ours = doc! { "$match": { "appName": &self.app_name, "cursor.cursorId": { "$exists": true } } };
        let killed = eventually("a cursor to kill", async || {
            let running = vec![doc! { "$currentOp": { "idleCursors": true } }, ours.clone()];
            let found: Vec<Document> = admin.aggregate(running).await.ok()?.try_collect().await.ok()?;
            let id = |found: &Document| found.get_document("cursor").ok()?.get_i64("cursorId").ok();
            let ids: Vec<i64> = found.iter().filter_map(id).collect();
            (!ids.is_empty()).then_some(ids)
        });
        let command = doc! { "killCursors": "messages", "cursors": killed.await };
        self.database.run_command(command).await.expect("the cursors are killed");
    }

    /// Sends a message to the room `a` over REST. Returns the status and the answer.
    pub async fn post(&self, content: &str, id: &str) -> (u16, Value) {
        let body = json!({ "room": "a", "sender": "Ana", "content": content, "id": id });
        let answer = self.http.post(format!("{}/api/messages", self.urls[0])).json(&body).send().await;
        let answer = answer.expect("the server answers, whatever MongoDB does");
        (answer.status().as_u16(), answer.json().await.expect("an answer of JSON"))
    }

    /// Closes the idle connections of [`Self::post`] and [`Self::get`].
    pub fn let_go_of_connections(&mut self) {
        self.http = http_client();
    }

    pub async fn say(&self, content: &str) -> String {
        let id = ObjectId::new().to_hex();
        let (status, answer) = self.post(content, &id).await;
        assert_eq!(status, 201, "{answer}");
        id
    }

    pub async fn get(&self, server: usize, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("{}{path}", self.urls[server])).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    }

    /// The sum over all labels of a metric of the first server.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get(0, "/metrics").await;
        let of_metric =
            text.lines().filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
        of_metric.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    pub async fn reopens(&self) -> u64 {
        self.metric("corriente_stream_reopens_total").await
    }

    /// Makes `commands` fail `times` times in the way of `data`, and waits until the stream has broken of that and is open
    /// again.
    pub async fn break_stream(&self, commands: &[&str], times: i32, data: Document) {
        let before = self.reopens().await;
        let deadline = Instant::now() + Duration::from_secs(harness::PATIENCE_SECS);
        while self.reopens().await == before {
            assert!(Instant::now() < deadline, "the stream does not break of {data}");
            let turn = self.fail(commands, times, data.clone()).await;
            // The fault may hit somebody else's `getMore`: a long page of history has one too. Then once more.
            let broken = async {
                while self.reopens().await == before {
                    sleep(Duration::from_millis(10)).await
                }
            };
            if timeout(Duration::from_secs(2), broken).await.is_ok() {
                self.expect_ready().await;
            }
            self.heal().await;
            drop(turn);
        }
    }

    pub async fn expect_ready(&self) {
        eventually("the server is ready", async || (self.get(0, "/readyz").await.0 == 200).then_some(())).await;
    }

    /// Sends a message and waits until it comes through; a collection that is made anew may be a reset before it and after
    /// it. Returns its cursor.
    pub async fn expect_live(&self, follower: &mut Follower) -> String {
        let id = self.say("live").await;
        loop {
            let frame = follower.next().await.expect("the socket stays open");
            match frame["type"].as_str() {
                Some("created") if frame["message"]["id"] == id => return cursor(&frame),
                Some("created" | "reset" | "ready" | "position") => {}
                _ => panic!("{frame}"),
            }
        }
    }

    pub async fn join(&self, server: usize, query: &str) -> Follower {
        let url = format!("{}/ws?{query}", self.urls[server].replacen("http", "ws", 1));
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("the handshake succeeds");
        Follower { socket }
    }

    pub async fn follow(&self, server: usize, query: &str) -> Follower {
        let mut follower = self.join(server, query).await;
        follower.expect("ready").await;
        follower
    }
}

fn http_client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(15)).build().expect("an HTTP client")
}

/// The cursor of a frame.
pub fn cursor(frame: &Value) -> String {
    frame["cursor"].as_str().expect("a cursor").to_owned()
}

/// Ends the traffic and asserts that the promise was kept.
pub async fn expect_kept(traffic: Traffic) -> (Verdict, Ledger, Vec<ReaderLog>) {
    let (verdict, ledger, logs) = traffic.finish().await;
    assert!(verdict.is_kept(), "the promise was broken\n{verdict}");
    assert!(verdict.acknowledged > 0 && verdict.events > 0, "nothing happened\n{verdict}");
    (verdict, ledger, logs)
}

/// Ends the traffic and asserts that nobody noticed anything: no reset, and nothing told twice.
pub async fn expect_unnoticed(traffic: Traffic) {
    let (verdict, ..) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "somebody noticed\n{verdict}");
}
