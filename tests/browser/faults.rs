//! Servers that are killed and databases that refuse: nothing of what people wrote is lost, and nothing comes twice.

use std::{process::Stdio, sync::Arc, time::Duration};

use clap::Parser;
use corriente::{app::App, config::Config};
use mongo_replica_set::ReplicaSet;
use mongodb::{
    Client, Collection, Database,
    bson::{DateTime, Document, doc, oid::ObjectId},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use crate::{
    chromium::{Window, with_chromium},
    harness::{PATIENCE_SECS, TestServer, mongo},
};

/// The server as a process of its own, which can be killed.
pub async fn start_program(uri: &str, database: &str, port: &str) -> (Child, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_corriente"))
        .args(["--mongodb-uri", uri, "--database", database, "--port", port])
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(program.stdout.take().expect("its stdout")).lines();
    let listening = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(url) = line.strip_prefix("listening on ") {
                return url.to_owned();
            }
        }
        panic!("the program ended");
    };
    let url = timeout(Duration::from_secs(PATIENCE_SECS), listening).await.expect("it listens");
    (program, url)
}

/// A mongod has one fail point of a name: who sets or ends `failCommand` does so alone.
static FAIL_POINT: Mutex<()> = Mutex::const_new(());

/// A server whose MongoDB fails when the test says so, and only it.
struct Fragile {
    app: App,
    database: Database,
    admin: Database,
    _alone: MutexGuard<'static, ()>,
    _mongo: Arc<ReplicaSet>,
}

impl Fragile {
    async fn start() -> Self {
        let mongo = mongo().await;
        let (database, uri) = fresh().await;
        let alone = FAIL_POINT.lock().await;
        let config = Config::parse_from(["corriente", "--port", "0", "--database", database.name()]);
        let app = App::start(&config, &uri).await.expect("the server starts");
        let admin = database.client().database("admin");
        Self { app, database, admin, _alone: alone, _mongo: mongo }
    }

    fn room(&self) -> String {
        format!("{}/rooms/general", self.app.url())
    }

    /// From now on these commands of the server fail, as `how` says.
    async fn fail(&self, commands: &[&str], how: Document) {
        let mut data = doc! { "failCommands": commands, "appName": self.database.name() };
        data.extend(how);
        let fail = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
        self.admin.run_command(fail).await.expect("the fail point is set");
    }

    async fn mend(&self) {
        let mend = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        self.admin.run_command(mend).await.expect("the fail point is ended");
    }

    async fn count(&self) -> u64 {
        self.database.collection::<Document>("messages").count_documents(doc! {}).await.expect("a count")
    }

    async fn stop(self) {
        self.app.stop().await;
        self.database.drop().await.expect("it is dropped");
    }
}

/// A database of our own on the shared MongoDB, and how a server is to call itself for a fault to meet only it.
pub async fn fresh() -> (Database, String) {
    let mongo = mongo().await;
    let name = format!("test_{}", ObjectId::new().to_hex());
    let uri = format!("{}&appName={name}&heartbeatFrequencyMS=500", mongo.uri());
    let database = Client::with_uri_str(mongo.uri()).await.expect("a client").database(&name);
    (database, uri)
}

#[tokio::test]
async fn a_killed_server_comes_back_with_nothing_lost_and_nothing_doubled() {
    with_chromium(async |chromium| {
        let _mongo = mongo().await;
        let (database, uri) = fresh().await;
        let messages: Collection<Document> = database.collection("messages");
        let (mut program, url) = start_program(&uri, database.name(), "0").await;
        chromium
            .window(Window::default(), async |ana| {
                let room = format!("{url}/rooms/general");
                ana.open_live(&room).await;
                ana.say("Ana", "before").await;
                ana.wait_for_messages(&["before"]).await;
                program.kill().await.expect("it is killed");
                ana.wait("the banner says offline", async || ana.connection().await.starts_with("Offline")).await;
                // Typing is never disabled, and what is sent waits.
                ana.say("Ana", "while away").await;
                ana.fill("content", "a draft").await;
                ana.wait("it waits", async || ana.text_of("#outbox").await.contains("Waiting")).await;
                ana.picture("offline").await;
                let outside = doc! { "content": "from outside", "sender": "robot", "date": DateTime::now() };
                messages.insert_one(outside).await.unwrap();
                let port = url.rsplit_once(':').unwrap().1;
                let (_program, _) = start_program(&uri, database.name(), port).await;
                let all = ["before", "from outside", "while away"];
                ana.wait_for_messages(&all).await;
                ana.wait("the outbox is empty", async || ana.text_of("#outbox").await.is_empty()).await;
                ana.wait("it is live", async || ana.connection().await == "Live").await;
                assert_eq!(messages.count_documents(doc! {}).await.unwrap(), 3);
                ana.open_live(&room).await;
                ana.wait_for_messages(&all).await;
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("a draft"));
            })
            .await;
        database.drop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_503_keeps_the_text_and_any_number_of_retries_makes_one_message_in_its_order() {
    with_chromium(async |chromium| {
        let server = Fragile::start().await;
        server.fail(&["insert"], doc! { "closeConnection": true }).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&server.room()).await;
                ana.say("Ana", "precious").await;
                ana.wait("the fault is said", async || ana.text_of("#note").await.contains("does not answer")).await;
                let is_kept = ana.text_of(".column").await.contains("precious");
                assert!(is_kept, "the text is neither in the outbox nor in the conversation");
                ana.picture("refused").await;
                // What is written meanwhile does not overtake.
                ana.say("Ana", "then this").await;
                ana.say("Ana", "and this").await;
                assert_eq!(ana.ask::<u32>("return document.querySelectorAll('#outbox article').length").await, 3);
                // Impatience is harmless.
                let retry =
                    "document.querySelectorAll('#outbox .failed button').forEach((button, at) => at || button.click())";
                for _ in 0..3 {
                    ana.driver.execute(retry, Vec::new()).await.unwrap();
                }
                server.mend().await;
                ana.wait("it is confirmed", async || {
                    ana.text_of("#outbox").await.is_empty() && ana.text_of("#note").await.is_empty()
                })
                .await;
                ana.wait_for_messages(&["precious", "then this", "and this"]).await;
                assert_eq!(server.count().await, 3);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn who_writes_too_much_is_told_so_and_all_of_it_is_sent_in_its_order() {
    with_chromium(async |chromium| {
        // Ten at once, and then one a second.
        let server = TestServer::start_with(&["--rate-per-sender", "1"]).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.fill("sender", "Ana").await;
                let write = "const { content } = document.getElementById('composer').elements;
                    const note = document.getElementById('note');
                    window.said = [];
                    new MutationObserver(() => said.push(note.textContent)).observe(note, { childList: true });
                    for (let n = 0; n < 13; n += 1) {
                        content.value = n;
                        content.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', cancelable: true }));
                    }
                    return document.querySelectorAll('#outbox article').length";
                assert_eq!(ana.ask::<u32>(write).await, 13, "each is in sight from the beginning");
                ana.wait("it is said that it is too much", async || {
                    let said: Vec<String> = ana.ask("return said").await;
                    said.iter().any(|said| said.contains("Too many messages at once"))
                })
                .await;
                ana.picture("too-many").await;
                let all: Vec<String> = (0..13).map(|n| n.to_string()).collect();
                ana.wait("all are stored", async || ana.messages().await == all).await;
                ana.wait("nothing is left to say or to send", async || {
                    ana.text_of("#outbox").await.is_empty() && ana.text_of("#note").await.is_empty()
                })
                .await;
                assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 13);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_loads_the_history_in_place_and_leaves_the_draft() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.say("Ana", "of the old collection").await;
                ana.wait_for_messages(&["of the old collection"]).await;
                ana.fill("content", "a draft").await;
                ana.driver.execute("window.isTheSamePage = true", Vec::new()).await.unwrap();
                // What follows the page's cursor can not be told any more.
                server.messages().drop().await.unwrap();
                let document = doc! { "content": "of the new one", "sender": "robot", "date": DateTime::now() };
                server.messages().insert_one(document).await.unwrap();
                ana.wait_for_messages(&["of the new one"]).await;
                ana.wait("it is live", async || ana.connection().await == "Live").await;
                assert!(ana.ask::<bool>("return window.isTheSamePage === true").await, "the page was loaded again");
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("a draft"));
                server.say("general", "and live again").await;
                ana.wait_for_messages(&["of the new one", "and live again"]).await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_written_after_a_refused_message_was_deleted_is_sent() {
    with_chromium(async |chromium| {
        let server = Fragile::start().await;
        server.fail(&["insert"], doc! { "closeConnection": true }).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&server.room()).await;
                // The pauses before a message is repeated: here they end when the test says so.
                let hold = "const { setTimeout } = window; window.held = []; window.setTimeout = (run, ms, ...rest) =>
                    ms >= 500 && ms <= 1000 ? held.push(run) : setTimeout(run, ms, ...rest)";
                ana.driver.execute(hold, Vec::new()).await.unwrap();
                ana.say("Ana", "unwanted").await;
                ana.wait("it is refused", async || ana.ask::<u32>("return held.length").await == 1).await;
                ana.click("#outbox .failed button:last-of-type").await;
                assert_eq!(ana.text_of("#outbox").await, "");
                server.mend().await;
                ana.driver.execute("held.forEach((run) => run())", Vec::new()).await.unwrap();
                ana.say("Ana", "wanted").await;
                ana.wait("it is confirmed", async || ana.text_of("#outbox").await.is_empty()).await;
                ana.wait_for_messages(&["wanted"]).await;
                assert_eq!(server.count().await, 1);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_stored_message_stays_in_sight_however_long_the_stream_is_away() {
    with_chromium(async |chromium| {
        let server = Fragile::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&server.room()).await;
                // The time within which the stream should bring it: here it ends when the test says so.
                let hold = "const { setTimeout } = window; window.held = []; window.setTimeout = (run, ms, ...rest) =>
                    ms === 10_000 ? held.push(run) : setTimeout(run, ms, ...rest)";
                ana.driver.execute(hold, Vec::new()).await.unwrap();
                server.fail(&["getMore", "aggregate"], doc! { "errorCode": 91 }).await;
                ana.wait("it is told that the stream is away", async || {
                    ana.connection().await.starts_with("Catching up")
                })
                .await;
                ana.say("Ana", "precious").await;
                ana.wait("it is stored", async || ana.text_of("#outbox .confirmed").await.contains("precious")).await;
                let time_is_up = "const due = held.splice(0); due.forEach((run) => run()); return due.length";
                for _ in 0..2 {
                    assert_eq!(ana.ask::<u32>(time_is_up).await, 1);
                    assert!(ana.text_of("#outbox").await.contains("precious"), "it is nowhere, and will be retyped");
                }
                server.mend().await;
                ana.wait_for_messages(&["precious"]).await;
                ana.wait("it is there once", async || ana.text_of("#outbox").await.is_empty()).await;
                // What was deleted at once never comes: over a live stream its row goes when the time is up.
                assert_eq!(ana.ask::<u32>(time_is_up).await, 1);
                assert_eq!(ana.ask::<u32>(time_is_up).await, 0);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_page_comes_back_at_once_when_the_network_or_its_reader_does() {
    with_chromium(async |chromium| {
        let _mongo = mongo().await;
        let (database, uri) = fresh().await;
        let (mut program, url) = start_program(&uri, database.name(), "0").await;
        let port = url.rsplit_once(':').unwrap().1;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{url}/rooms/general")).await;
                // The pauses between two tries never end by themselves: here only who is woken comes back.
                let hold = "const { setTimeout } = window; window.setTimeout = (run, ms, ...rest) =>
                    ms > 20 ? 0 : setTimeout(run, ms, ...rest)";
                ana.driver.execute(hold, Vec::new()).await.unwrap();
                for back in
                    ["dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"]
                {
                    program.kill().await.expect("it is killed");
                    ana.wait("the banner says offline", async || ana.connection().await.starts_with("Offline")).await;
                    (program, _) = start_program(&uri, database.name(), port).await;
                    ana.driver.execute(back, Vec::new()).await.unwrap();
                    ana.wait(&format!("it is live after {back}"), async || ana.connection().await == "Live").await;
                }
            })
            .await;
        drop(program);
        database.drop().await.unwrap();
    })
    .await;
}
