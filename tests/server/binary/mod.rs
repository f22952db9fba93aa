//! The program as it is started and stopped by people, by other programs and by the system.

mod command_line;
mod refusals;
mod stops;

use std::{
    net::TcpListener,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use clap::CommandFactory;
use corriente::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::harness::{PATIENCE_SECS, eventually};

const PATIENCE: Duration = Duration::from_secs(PATIENCE_SECS);
/// What the design promises for a stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// The first start of an embedded MongoDB may have to fetch it.
const START_WITHIN: Duration = Duration::from_secs(120);

/// The program, running. Dropping it kills it, and its MongoDB with it.
pub struct Program {
    pub child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
}

/// What the program did when it has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// The program with nothing in its environment that configures it.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corriente"));
    for argument in Config::command().get_arguments() {
        argument.get_env().map(|name| command.env_remove(name));
    }
    command.env("PORT", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pipe = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut text = Vec::new();
            // Whatever came before the pipe broke is what there is to look at.
            let _ = pipe.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, stdout, stderr }
    }

    /// Over an embedded MongoDB with its files here.
    fn in_dir(dir: &Path) -> Self {
        let mut command = command();
        command.env("DATA_DIR", dir);
        Self::start(command)
    }

    /// The two lines for other programs: the URI of MongoDB, and the URL of the server.
    pub async fn ready(&mut self) -> (String, String) {
        let mut lines = Vec::new();
        for start in ["mongodb: ", "listening on "] {
            let line = timeout(START_WITHIN, self.stdout.next_line()).await.expect("a line in time").unwrap();
            match line.as_deref().and_then(|line| line.strip_prefix(start)) {
                Some(rest) => lines.push(rest.to_owned()),
                None => {
                    let said = timeout(PATIENCE, &mut self.stderr).await;
                    panic!("{line:?} instead of {start}; {said:?}");
                }
            }
        }
        let [uri, url] = lines.try_into().unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        (uri, url)
    }

    pub async fn signal(&self, name: &str) {
        signal(self.child.id().expect("it runs"), name).await;
    }

    pub async fn ended(mut self, within: Duration) -> Ended {
        let status = timeout(within, self.child.wait()).await.unwrap_or_else(|_| panic!("not ended in {within:?}"));
        let mut stdout = String::new();
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            stdout += &line;
            stdout.push('\n');
        }
        Ended { status: status.unwrap(), stdout, stderr: self.stderr.await.unwrap() }
    }
}

/// Where an embedded MongoDB keeps its files.
struct DataDir(TempDir);

impl DataDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // When a test ends with the program still running, mongod is killed with it, and may be writing for a moment
        // into what is about to be removed.
        let text = std::fs::read_to_string(self.path().join("member-0/mongod.lock")).unwrap_or_default();
        let start = std::time::Instant::now();
        while text.trim().parse().is_ok_and(is_alive) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn signal(pid: u32, name: &str) {
    let killed = Command::new("kill").args(["-s", name, &pid.to_string()]).status().await.unwrap();
    assert!(killed.success());
}

/// The process id that the embedded mongod has written beside its files.
fn mongod_of(dir: &Path) -> u32 {
    let text = std::fs::read_to_string(dir.join("member-0/mongod.lock")).expect("mongod has begun");
    text.trim().parse().expect("a process id")
}

/// Whether a process runs. A zombie does not: it waits for whoever inherited it.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

async fn expect_gone(pid: u32) {
    eventually("mongod is gone", async || (!is_alive(pid)).then_some(())).await;
}

async fn get(url: &str) -> Value {
    let answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{url}");
    answer.json().await.expect("JSON")
}

async fn say(url: &str, content: &str) -> String {
    let body = json!({ "sender": "Ana", "content": content });
    let answer = reqwest::Client::new().post(format!("{url}/api/messages")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.headers()["location"].to_str().unwrap().to_owned()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
